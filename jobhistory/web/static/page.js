// What the page cannot do without a script. Everything else works without it.
"use strict";

document.getElementById("no-script").remove();

// The server knows the time zone of the browser from a cookie.
document.cookie =
  "jobhistory_local_zone=" + Intl.DateTimeFormat().resolvedOptions().timeZone +
  "; max-age=31536000; samesite=lax";

// Parts of a page that ask for themselves again and again do not while nobody looks at the page, nor
// while the viewer fills in a form.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (!event.target.closest("[data-live]")) return;
  const focused = document.activeElement;
  if (document.hidden || (focused && focused.closest("form"))) event.preventDefault();
});

// If they get no answer, what they show stays, and a line above it says how old it is.
const stale = document.getElementById("stale");
let since = new Date();
for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    if (!event.target.closest("[data-live]")) return;
    stale.textContent ||=
      `The history does not answer. What you see is from ${since.toLocaleTimeString()}; ` +
      "the page keeps trying.";
  });
}
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (!event.target.closest("[data-live]") || event.detail.xhr.status >= 400) return;
  since = new Date();
  stale.textContent = "";
});

// Buttons that copy snippets. Without a secure connection, browsers only let the viewer copy.
document.addEventListener("htmx:load", (event) => {
  for (const snippet of event.target.querySelectorAll("pre.snippet")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(snippet.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(snippet);
        button.textContent = "Selected";
      }
    });
    snippet.before(button);
  }
});

// The suggestions of the search box. The arrow keys choose one, Enter takes it, Escape hides them.
const box = document.querySelector("[role=combobox]");
if (box) {
  const list = document.getElementById(box.getAttribute("aria-controls"));
  let chosen = null;
  const choose = (option) => {
    if (chosen) chosen.setAttribute("aria-selected", "false");
    chosen = option;
    if (!option) return box.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    box.setAttribute("aria-activedescendant", option.id);
  };
  const show = (isShown) => {
    choose(null);
    list.hidden = !isShown;
    box.setAttribute("aria-expanded", String(isShown));
  };
  const take = (option) => {
    box.value = option.dataset.value;
    show(false);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };
  list.addEventListener("htmx:beforeSwap", (event) => {
    // They would replace what the viewer has typed since; htmx asks for those of that next.
    if (event.detail.requestConfig.parameters.q !== box.value) event.detail.shouldSwap = false;
  });
  list.addEventListener("htmx:afterSwap", () => {
    show(document.activeElement === box && list.children.length > 0);
  });
  list.addEventListener("mousedown", (event) => {
    event.preventDefault(); // the box keeps the focus
    const option = event.target.closest("[role=option]");
    if (option) take(option);
  });
  box.addEventListener("blur", () => show(false));
  box.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const options = [...list.children];
    const at = options.indexOf(chosen);
    if (event.key === "ArrowDown") choose(options[(at + 1) % options.length]);
    else if (event.key === "ArrowUp") choose(options.at(at > 0 ? at - 1 : -1));
    else if (event.key === "Escape") show(false);
    else if (event.key === "Enter" && chosen) take(chosen);
    else return;
    event.preventDefault();
  });
}

// Relative times keep going, by the clock of the server, and read as the server writes them.
const serversClock = Date.now() - Date.parse(document.documentElement.dataset.now);

function relative(milliseconds) {
  const seconds = Math.floor(Math.abs(milliseconds) / 1000);
  if (seconds < 1) return "just now";
  const units = { d: 86400, h: 3600, min: 60, s: 1 };
  const isIn = (unit) =>
    seconds >= 2 * units[unit] ||
    (unit !== "min" && seconds >= units[unit] && seconds % units[unit] === 0);
  const unit = Object.keys(units).find(isIn) || "s";
  const length = Math.floor(seconds / units[unit]) + " " + unit;
  return milliseconds > 0 ? length + " ago" : "in " + length;
}

setInterval(() => {
  if (document.hidden) return;
  const now = Date.now() - serversClock;
  for (const time of document.querySelectorAll("time[data-relative]")) {
    const text = relative(now - Date.parse(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}, 1000);

// The names of time zones, as the browser knows them.
const zone = document.getElementById("zone");
zone.addEventListener("focus", () => {
  const names = document.createElement("datalist");
  names.id = "zones";
  names.append(...Intl.supportedValuesOf("timeZone").map((name) => new Option(name)));
  zone.after(names);
  zone.setAttribute("list", names.id);
}, { once: true });

// Menus close as those of the system do.
const closeMenus = (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (event.key === "Escape" || !menu.contains(event.target)) menu.open = false;
  }
};
document.addEventListener("click", closeMenus);
document.addEventListener("keydown", (event) => event.key === "Escape" && closeMenus(event));

// Keys. The dialog "keys" in layout.html lists them.
const keys = document.getElementById("keys");

const moveBy = (step) => {
  const rows = [...document.querySelectorAll("main .list tbody tr")].filter((row) => row.querySelector("a"));
  const row = rows.indexOf(document.activeElement.closest("tr"));
  const next = rows[row < 0 ? 0 : row + step];
  if (next) linkOf(next).focus();
};

const linkOf = (row) => row.querySelector("a[data-opens]") || row.querySelector("a");

const nextTheme = async () => {
  const themes = [...document.querySelectorAll("#themes a")];
  const chosen = themes.findIndex((theme) => theme.hasAttribute("aria-current"));
  await fetch(themes[(chosen + 1) % themes.length].href, { redirect: "manual" });
  location.reload();
};

const actions = {
  "/": () => {
    const search = document.querySelector("main [type=search]");
    search?.focus();
    search?.select();
  },
  j: () => moveBy(1),
  k: () => moveBy(-1),
  o: () => {
    const row = document.activeElement.closest("main .list tr");
    if (row) linkOf(row).click();
  },
  "[": () => document.querySelector("[rel=first]") && history.back(),
  "]": () => document.querySelector("[rel=next]")?.click(),
  r: () => location.reload(),
  t: nextTheme,
  "?": () => keys.showModal(),
};

document.addEventListener("keydown", (event) => {
  // Some keyboards need AltGr for brackets, which Windows reports as Ctrl and Alt.
  const isModified = (event.ctrlKey || event.altKey || event.metaKey) && !event.getModifierState("AltGraph");
  const isTyping = event.target.closest("input, textarea, select, dialog");
  if (isModified || isTyping || !Object.hasOwn(actions, event.key)) return;
  event.preventDefault();
  actions[event.key]();
});

const shortcuts = document.getElementById("shortcuts");
shortcuts.hidden = false;
shortcuts.addEventListener("click", () => keys.showModal());

// A hidden tab gets no events: browsers allow six connections to a server, and events take one each.
const sources = new Set();
htmx.createEventSource = (url) => {
  const source = new EventSource(url, { withCredentials: true });
  sources.add(source);
  if (document.hidden) source.close(); // opened in the background
  return source;
};
document.addEventListener("visibilitychange", () => {
  for (const source of sources) {
    if (document.hidden) {
      source.close();
    } else if (source.readyState === EventSource.CLOSED) {
      sources.delete(source);
      source.onerror(new Event("error")); // htmx then makes another one
    }
  }
});
