"""Mutation testing of the core and the synchronizer: each small change to the code must fail a test.

The changes are those of mutmut's operators, and a few of ours (`mutants`). mutmut's own command leaves out whatever is
decorated (properties, what is cached), constants, defaults and fields, in which much of the core lies; and cosmic-ray
starts a process for each change. So the trials are run here (`trial`): one process imports the tests once, and forks.
"""
