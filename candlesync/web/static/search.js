// The symbol field: a combobox over what the server lists.

const SHOWN = 60;
const FRESH = 60_000; // ms that a list is good for: symbols are added

/** The listed symbols that fit what was typed, the best first. */
export function matching(symbols, typed) {
  const wanted = typed.trim().toUpperCase();
  const fits = [
    ({ symbol }) => symbol === wanted,
    ({ base }) => base === wanted,
    ({ symbol }) => symbol.startsWith(wanted),
    ({ symbol }) => symbol.includes(wanted),
  ];
  const rank = (listed) => fits.findIndex((fit) => fit(listed));
  return symbols
    .map((listed) => ({ listed, rank: rank(listed) }))
    .filter(({ rank }) => rank >= 0)
    .sort((one, other) => one.rank - other.rank)
    .slice(0, SHOWN)
    .map(({ listed }) => listed);
}

/** Let people choose. `list` promises what the server lists, and `choose` is called with a symbol. */
export function search({ form, field, found, list, choose }) {
  let symbols = null;
  let listed = -Infinity;
  let isTyped = false; // or the field still says what is looked at
  let shown = [];
  let marked = -1;

  const close = () => {
    found.hidden = true;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
    marked = -1;
  };

  const pick = (symbol) => {
    close();
    field.value = symbol;
    field.blur();
    choose(symbol);
  };

  const mark = (place) => {
    found.children[marked]?.setAttribute("aria-selected", "false");
    marked = place;
    const item = found.children[marked];
    if (!item) return field.removeAttribute("aria-activedescendant");
    item.setAttribute("aria-selected", "true");
    item.scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", item.id);
  };

  const show = () => {
    if (!symbols || document.activeElement !== field) return;
    const typed = isTyped ? field.value : "";
    shown = matching(symbols, typed);
    const items = shown.map(({ symbol, base, quote, status }, place) => {
      const item = document.createElement("li");
      item.id = `found-${place}`;
      item.role = "option";
      item.ariaSelected = "false";
      const about = document.createElement("span");
      about.textContent = status === "TRADING" ? `${base} / ${quote}` : status.toLowerCase();
      item.append(symbol, about);
      return item;
    });
    if (!items.length) {
      const none = document.createElement("li");
      none.className = "none";
      none.textContent = "no such symbol";
      items.push(none);
    }
    found.replaceChildren(...items);
    found.hidden = false;
    field.setAttribute("aria-expanded", "true");
    mark(shown.length && typed.trim() ? 0 : -1);
  };

  field.addEventListener("focus", async () => {
    field.select();
    isTyped = false;
    show();
    if (performance.now() - listed < FRESH) return;
    try {
      symbols = await list();
    } catch {
      return; // it can still be typed
    }
    listed = performance.now();
    show();
  });
  field.addEventListener("input", () => {
    isTyped = true;
    show();
  });
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") {
      event.preventDefault(); // which would empty the field
      close();
      field.blur();
    } else if (step && shown.length && !found.hidden) {
      event.preventDefault();
      mark((marked + step + shown.length) % shown.length);
    }
  });
  // Before the field loses its focus, which closes the list.
  found.addEventListener("pointerdown", (event) => event.preventDefault());
  found.addEventListener("click", (event) => {
    const place = [...found.children].indexOf(event.target.closest("li"));
    if (shown[place]) pick(shown[place].symbol);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = field.value.trim().toUpperCase();
    const symbol = (!found.hidden && shown[marked]?.symbol) || typed;
    if (symbol) pick(symbol);
  });
}
