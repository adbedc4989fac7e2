// Displays one sign-up, step by step. All texts are inserted as text nodes, so typed values are never parsed as HTML.

function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const tag = (text, kind = "") => el("span", { class: `tag ${kind}` }, text);
const time = (milliseconds) =>
  milliseconds === null || milliseconds === undefined ? null
    : tag(milliseconds >= 1000 ? `${(milliseconds / 1000).toFixed(1)} s` : milliseconds < 0.1 ? "under 0.1 ms" : `${milliseconds} ms`);
const clock = (moment) => new Date(moment).toLocaleTimeString();

function head(title, ...tags) {
  return el("div", { class: "head" }, el("h3", {}, title), el("span", { class: "tags" }, tags));
}

function more(key, title, ...parts) {
  return el("details", { "data-key": key }, el("summary", {}, title), parts);
}

function headers(list) {
  return el("pre", {}, list.map(([name, value]) => `${name}: ${value}`).join("\n"));
}

// --- the steps -------------------------------------------------------------------------------------------------

function hookCall(key, title, call, text) {
  return [
    head(title, call.answer ? time(call.answer.duration_ms) : tag("running", "wait")),
    el("p", {}, text),
    el("p", { class: "line" }, `POST ${call.url}`),
    more(`${key}-headers`, "Headers", headers(call.headers)),
    more(`${key}-body`, "Body", el("pre", {}, call.body.trimEnd())),
  ];
}

function exchange(key, one) {
  const state = {
    under_way: () => [tag("no response yet", "wait")],
    cut_off: () => [tag("no response", "no"), time(one.duration_ms)],
    answered: () => [tag(`${one.status}`, one.status < 400 ? "yes" : "no"), time(one.duration_ms)],
  }[one.state]();
  const host = one.headers.find(([name]) => name === "host")?.[1] ?? "";
  return el("div", { class: "try" },
    el("div", { class: "head" },
      el("p", { class: "line" }, `${one.method} http://${host}${one.path}`), el("span", { class: "tags" }, state)),
    el("div", { class: "pair" }, el("span", { class: "hint" }, "request"), el("pre", {}, pretty(one.body))),
    one.state === "answered"
      ? el("div", { class: "pair" }, el("span", { class: "hint" }, "response"), el("pre", {}, pretty(one.answer)))
      : one.state === "cut_off" && el("p", {}, "Vestibule stopped waiting, or the service went down. The connection ended without a response."),
    more(`${key}-headers`, "Headers", headers(one.headers)));
}

function questions(sign_up, behaviour) {
  const answered = sign_up.pre?.answer;
  const title = "Vestibule calls the VAT register";
  if (sign_up.questions.length === 0) {
    if (!answered) return [head(title, tag("no request yet", "wait"))];
    const why = behaviour("register") === "down"
      ? "The VAT register is down and refuses connections."
      : sign_up.flow === "settings"
        ? "No request was necessary: the value is unchanged, or it is not a VAT number."
        : "No request was necessary: the value is not a VAT number.";
    return [head(title, tag("no request")), el("p", {}, why)];
  }
  return [head(title), sign_up.questions.map((one, number) => exchange(`question-${number}`, one)),
    el("p", { class: "hint" }, "The invite code needs no request, because the settings list the codes.")];
}

const verdicts = {
  204: ["accepted, unchanged", "yes", "Status 204 without a body: Kratos saves the account without changes."],
  200: ["accepted, with changes", "yes", "Kratos replaces these fields, each as a whole, and saves the account."],
};

function verdict(answer) {
  const [result, kind, meaning] = verdicts[answer.status]
    ?? (answer.status >= 400 && answer.status < 500
      ? ["refused", "no", "Kratos saves nothing, and places each message where its instance_ptr points."]
      : ["no usable response", "no", "Kratos would show its error page."]);
  const placed = answer.body?.messages ?? [];
  const body = el("pre", {}, pretty(answer.body));
  return [head("Vestibule responds", tag(`${answer.status ?? "no response"} · ${result}`, kind)),
    el("p", {}, meaning),
    placed.length > 0 && el("dl", {}, placed.map((place) => [
      el("dt", { class: "line" }, place.instance_ptr),
      place.messages.map((one) => el("dd", {}, one.text, " ", el("span", { class: "hint" }, `message ${one.id}`)))])),
    answer.body && (placed.length > 0 ? more("verdict-body", "Body", body) : body)];
}

const beside = (id, messages) => messages.length > 0 && el("ul", { class: "beside", id },
  messages.map((one) => el("li", { class: one.type === "error" ? "" : "info" }, one.text)));

function kratosForm(form) {
  const label = (node) => node.meta?.label?.text ?? node.attributes.name;
  const seen = form.nodes.filter((node) => !["hidden", "submit"].includes(node.attributes.type));
  const hidden = form.nodes.filter((node) => node.attributes.type === "hidden" && node.attributes.name.startsWith("traits."));
  const buttons = form.nodes.filter((node) => node.attributes.type === "submit");
  const input = (node, number) => {
    const id = `shown-${number}`;
    const wrong = node.messages.length > 0;
    return el("div", { class: "field" }, el("label", { for: id }, label(node)),
      el("input", { id, readonly: true, type: node.attributes.type === "password" ? "password" : "text",
        value: node.attributes.value, "aria-invalid": wrong && "true", "aria-describedby": wrong && `${id}-messages` }),
      beside(`${id}-messages`, node.messages));
  };
  return [
    el("div", { class: "shown", role: "group", "aria-label": "The form as Kratos shows it" },
      form.messages.length > 0 && el("ul", { class: "above" },
        form.messages.map((one) => el("li", { class: one.type === "error" ? "no" : "info" }, one.text))),
      seen.map(input),
      buttons.length > 0 && el("p", { class: "press" }, buttons.map((node) => el("span", {}, label(node))))),
    hidden.length > 0 && el("div", { class: "shown unseen", role: "group", "aria-label": "Hidden fields" },
      el("p", { class: "hint" }, "Hidden in this step. The visitor sees these fields after a step back:"),
      hidden.map((node) => el("div", { class: "field" },
        el("span", { class: "name" }, `${node.attributes.name} = ${JSON.stringify(node.attributes.value ?? "")}`),
        beside(undefined, node.messages)))),
  ];
}

const refusals = {
  refused: ["Kratos shows the form again", "Nothing is saved, and no other call is made."],
  taken: ["Kratos has an account with this address", "Vestibule accepted the sign-up, but Kratos checks the address after that. Nothing is saved, and no other call is made."],
  failed: ["Kratos shows its error page", "Nothing is saved."],
};

function outcome(sign_up) {
  if (sign_up.end !== "saved") {
    const [title, text] = refusals[sign_up.end];
    return [head(title, tag("not saved", "no")), el("p", {}, text),
      sign_up.form === null && el("p", {}, "Kratos asks the visitor to log in, to link the two accounts."),
      sign_up.form && sign_up.end !== "failed" && [kratosForm(sign_up.form),
        more("form", "The form as JSON", el("pre", {}, pretty(sign_up.form)))]];
  }
  const account = sign_up.account;
  const added = sign_up.pre.answer.body?.identity ?? {};
  const lines = pretty({ traits: account.traits, metadata_public: account.metadata_public });
  const marked = el("pre", {});
  const values = new Set(Object.values(added).flatMap((part) => (part && typeof part === "object" ? Object.keys(part) : [])));
  let inside = "";
  for (const line of lines.split("\n")) {
    const top = line.match(/^ {2}"(\w+)"/);
    if (top) inside = top[1];
    const key = line.match(/^ {4}"(\w+)"/)?.[1];
    marked.append(key && inside in added && values.has(key) ? el("mark", {}, line) : line, "\n");
  }
  return [head(sign_up.flow === "settings" ? "Kratos saves the profile" : "Kratos saves the account", tag("saved", "yes")),
    el("p", { class: "line" }, `id ${account.id}`), marked,
    Object.keys(added).length > 0 && el("p", { class: "hint" }, "Vestibule set the marked values."),
    more("account", "The whole identity", el("pre", {}, pretty(account)))];
}

function delivery(one) {
  const kinds = { delivered: "yes", pending: "wait", abandoned: "no" };
  const tries = `${one.attempts} ${one.attempts === 1 ? "attempt" : "attempts"}`;
  const next = one.state === "pending" && one.attempts > 0 && one.last_error;
  return [
    head(`Vestibule delivers to the CRM: ${one.subscription}`, tag(one.state, kinds[one.state]), tag(tries)),
    next && el("p", {}, `The last attempt failed: ${one.last_error}. The next attempt is at ${clock(one.next_attempt_at)}. Vestibule retries for eight days.`),
    one.attempts > 0 && one.tries.length === 0 && el("p", {}, "No attempt has reached the CRM so far."),
    one.tries.map((exchanged, number) => exchange(`${one.id}-${number}`, exchanged)),
    el("p", { class: "hint" }, `Delivery ${one.id}. Its id is the Idempotency-Key of every attempt.`),
  ];
}

// --- the sign-up -------------------------------------------------------------------------------------------------

function steps(sign_up, behaviour) {
  const list = [];
  const { pre, post } = sign_up;
  const what = sign_up.flow === "settings" ? "profile" : "account";
  if (pre) {
    list.push(["pre", hookCall("pre", `Kratos calls pre, before it saves the ${what}`, { ...pre, answer: pre.answer && { duration_ms: pre.answer.duration_ms } },
      "The visitor has submitted the form. A pre hook can refuse the form.")]);
    list.push(["questions", questions(sign_up, behaviour)]);
  }
  if (pre?.answer) list.push(["verdict", verdict(pre.answer)]);
  if (sign_up.end) list.push(["outcome", outcome(sign_up)]);
  if (post) {
    const parts = hookCall("post", `Kratos calls post: the ${what} is saved`, post, "A post hook cannot refuse.");
    const status = post.answer?.status;
    if (post.answer) parts.push(el("p", {}, tag(`${status ?? "no response"}`, status === 204 ? "yes" : "no"),
      status === 204 ? " Stored. Kratos continues, without waiting for the deliveries." : " Not stored. Kratos calls again."));
    list.push(["post", parts]);
  }
  for (const one of sign_up.deliveries) list.push([one.id, delivery(one)]);
  return list;
}

export function sum(kind, text) {
  const line = document.getElementById("sum");
  line.className = kind;
  if (line.textContent !== text) line.textContent = text;
}

function summarize(sign_up) {
  if (!sign_up.end) return sum("wait", "Vestibule checks the sign-up …");
  if (sign_up.end !== "saved") return sum("no", `Not saved. ${refusals[sign_up.end][0]}.`);
  const waiting = sign_up.deliveries.filter((one) => one.state === "pending").length;
  if (!sign_up.over || waiting > 0) return sum("wait", "Saved. The delivery is pending …");
  const arrived = sign_up.deliveries.filter((one) => one.state === "delivered").length;
  return sum("yes", `Saved, and ${arrived === 1 ? "one delivery has" : `${arrived} deliveries have`} arrived.`);
}

let shownId;
const drawn = new Map();

export function show(sign_up, behaviour) {
  const way = document.getElementById("way");
  if (shownId !== sign_up.id) {
    shownId = sign_up.id;
    drawn.clear();
    way.replaceChildren();
  }
  summarize(sign_up);
  steps(sign_up, behaviour).forEach(([key, parts], number) => {
    const step = el("div", { class: "step" }, parts);
    const known = drawn.get(key);
    if (!known) {
      const item = el("li", { "data-number": number + 1 }, step);
      drawn.set(key, { item, html: step.innerHTML });
      way.append(item);
    } else if (known.html !== step.innerHTML) {
      known.html = step.innerHTML;
      // Open details stay open, and the focus stays where it is.
      const old = known.item.firstElementChild;
      const focused = old.contains(document.activeElement) && document.activeElement.closest("[data-key]")?.dataset.key;
      const open = [...old.querySelectorAll("details[open]")].map((one) => one.dataset.key);
      known.item.replaceChildren(step);
      for (const one of step.querySelectorAll("details")) {
        one.open = open.includes(one.dataset.key);
        if (focused === one.dataset.key) one.querySelector("summary").focus();
      }
    }
  });
}
