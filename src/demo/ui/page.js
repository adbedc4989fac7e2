// Runs the form and the switches, and follows the displayed sign-up.
import { show, sum } from "./view.js";

const form = document.getElementById("sign-up");
const problem = document.getElementById("problem");
const field = (name) => form.elements.namedItem(name);

const behaviours = {
  register: {
    works: "Answers immediately.",
    slow: "Answers after 10 s; the check waits 3 s.",
    busy: "Answers that the register is busy, as VIES does.",
    broken: "Answers with an error page, status 500.",
    down: "Refuses connections.",
  },
  crm: {
    works: "Stores every contact.",
    broken: "Answers with an error page, status 500. Vestibule retries deliveries until they arrive.",
    down: "Refuses connections. Vestibule retries deliveries until they arrive.",
  },
};

// A new address for each sign-up, because Kratos accepts each address only once.
const address = () => `ada.${Math.random().toString(36).slice(2, 6)}@muster.example`;
const examples = {
  good: { vat_number: "DE811115368", invite: "WELCOME-2026" },
  unknown: { vat_number: "DE000000000", invite: "WELCOME-2026" },
  malformed: { vat_number: "D", invite: "" },
  invite: { vat_number: "FR40303265045", invite: "LET-ME-IN" },
};

async function ask(path, method = "GET", body) {
  const answer = await fetch(path, {
    method,
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  const read = await answer.json();
  if (!answer.ok) throw new Error(read.problem);
  return read;
}

let accounts = [];

function take(state) {
  for (const service of ["register", "crm"]) {
    const set = document.querySelector(`[data-service=${service}]`);
    for (const radio of set.querySelectorAll("input")) radio.checked = radio.value === state[service];
    set.querySelector(".hint").textContent = behaviours[service][state[service]] ?? "";
  }
  document.getElementById("registered").textContent =
    `Registered: ${state.registered.map((one) => one.number).join(", ")}`;
  const kratos = document.getElementById("kratos");
  kratos.hidden = !state.kratos;
  if (state.kratos) kratos.querySelector("a").href = state.kratos;
  accounts = state.accounts;
  const select = field("changes");
  const chosen = select.value;
  select.replaceChildren(new Option("New sign-up", ""));
  for (const account of accounts) select.add(new Option(`Change of ${account.traits.email}`, account.id));
  select.value = accounts.some((account) => account.id === chosen) ? chosen : "";
  document.getElementById("changes-label").hidden = accounts.length === 0;
  changed();
}

function fill(traits) {
  for (const name of ["email", "company", "vat_number", "invite"]) field(name).value = traits[name] ?? "";
}

function changed() {
  const settings = field("changes").value !== "";
  for (const name of ["steps", "method"]) field(name).disabled = settings;
  form.querySelector(".main").textContent = settings ? "Save the profile" : "Sign up";
}

// The displayed sign-up. Requests for an earlier one end.
let current;

async function follow(id) {
  current = id;
  let seen = "";
  let over = false;
  while (current === id) {
    let news;
    try {
      news = await ask(`/api/sign-ups/${id}?seen=${seen}`);
    } catch (error) {
      if (current === id) sum("no", `The demo does not respond (${error.message}).`);
      return;
    }
    if (current !== id) return;
    seen = news.seen;
    show(news.sign_up, (service) => document.querySelector(`[name=${service}]:checked`)?.value);
    if (news.sign_up.over && !over) {
      over = true;
      if (news.sign_up.end === "saved") take(await ask("/api/state"));
    }
    const open = news.sign_up.deliveries.some((one) => one.state === "pending");
    if (over && !open) return;
  }
}

async function send() {
  problem.textContent = "";
  const text = (name) => field(name).value.trim();
  const input = {
    traits: Object.fromEntries(["email", "company", "vat_number", "invite"].map((name) => [name, text(name)])),
    method: field("method").value,
    steps: field("steps").value,
    language: field("language").value,
    changes: field("changes").value || null,
  };
  try {
    const { id } = await ask("/api/sign-ups", "POST", input);
    follow(id);
    if (matchMedia("(max-width: 60rem)").matches) document.getElementById("way-title").scrollIntoView();
  } catch (error) {
    problem.textContent = `Kratos rejects the form, and calls no hook: ${error.message}.`;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

field("changes").addEventListener("change", () => {
  changed();
  fill(accounts.find((account) => account.id === field("changes").value)?.traits ?? { email: address() });
});

for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => {
    field("changes").value = "";
    changed();
    fill({ email: address(), company: "Muster", ...examples[button.dataset.example] });
    send();
  });
}

for (const set of document.querySelectorAll("[data-service]")) {
  set.addEventListener("change", async (event) => {
    try {
      take(await ask("/api/switch", "PUT", { [set.dataset.service]: event.target.value }));
    } catch (error) {
      set.querySelector(".hint").textContent = `Could not switch the service: ${error.message}`;
    }
  });
}

fill({ email: address(), company: "Muster", vat_number: "DE811115368", invite: "WELCOME-2026" });
take(await ask("/api/state"));
