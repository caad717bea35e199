"""The simulation behind ``scripts/simulate``: days of the whole service in seconds, with all that can go wrong.

    seed ──▶ schedule ──▶ world: simulated exchange ─▶ the service as it is ─▶ clients ──▶ verdict
             (faults,     one process, virtual time,    `watch`: the invariants,    (and, if it failed,
              as JSON)    every chance from the seed      after each step             the shrunk schedule)

The service is the one that users run: nothing of it is replaced but what lies outside of the process (the network, the
store's server, the clients, the clock, chance). With several nodes each `node` has one, around one `shared` store. What
is checked, the checks know from the design and from the truth of the exchange alone; they keep books of their own, and
ask none of the service's code what is right.
"""
