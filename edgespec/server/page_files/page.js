// The conversation of the page at /: asks the server that it came from, and nobody else.
// Whatever a model says becomes text nodes: nothing of it is ever read as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const make = (tag, more = {}, ...inside) => {
  const node = Object.assign(document.createElement(tag), more);
  node.append(...inside);
  return node;
};

// --- Markdown, by places in the source, so that every letter keeps whether it was drafted -------

class Words {
  // text: what was said; drafted: for each letter 1 or 0.
  constructor() { this.text = ""; this.drafted = []; this.thought = ""; }

  add(text, drafted) {
    this.text += text;
    for (let i = 0; i < text.length; i++) this.drafted.push(drafted ? 1 : 0);
  }

  // Letters a to b as text nodes, those that were drafted in spans.
  paint(node, a, b) {
    while (a < b) {
      let end = a + 1;
      while (end < b && this.drafted[end] === this.drafted[a]) end++;
      const part = this.text.slice(a, end);
      node.append(this.drafted[a] ? make("span", { className: "drafted" }, part) : part);
      a = end;
    }
  }

  render(node) {
    node.replaceChildren();
    const lines = [];
    for (let at = 0; at <= this.text.length;) {
      let end = this.text.indexOf("\n", at);
      if (end < 0) end = this.text.length;
      lines.push([at, end]);
      at = end + 1;
    }
    for (let i = 0; i < lines.length;) i = this.block(node, lines, i);
  }

  line([a, b]) { return this.text.slice(a, b); }

  // One block from line i on; where the next begins.
  block(node, lines, i) {
    const line = this.line(lines[i]);
    const fence = line.match(/^\s*(```+|~~~+)\s*([\w+#.-]*)/);
    if (fence) return this.code(node, lines, i, fence);
    if (!line.trim()) return i + 1;
    const head = line.match(/^(#{1,6})\s+/);
    if (head) {
      this.inline(node.appendChild(make("h3")), lines[i][0] + head[0].length, lines[i][1]);
      return i + 1;
    }
    if (/^\s*([-*_])\s*(\1\s*){2,}$/.test(line)) { node.append(make("hr")); return i + 1; }
    if (/^\s*([-*+]|\d{1,9}[.)])\s+/.test(line)) return this.list(node, lines, i);
    if (line.startsWith(">")) return this.quote(node, lines, i);
    if (line.includes("|") && i + 1 < lines.length
        && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(this.line(lines[i + 1]))) {
      return this.table(node, lines, i);
    }
    const p = node.appendChild(make("p"));
    for (let first = true; i < lines.length; i++, first = false) {
      const next = this.line(lines[i]);
      if (!first && (!next.trim() || /^\s*(```|~~~|#{1,6}\s|>|[-*+]\s|\d{1,9}[.)]\s)/.test(next))) break;
      if (!first) p.append(make("br"));
      this.inline(p, ...lines[i]);
    }
    return i;
  }

  code(node, lines, i, fence) {
    const begin = ++i;
    while (i < lines.length && !this.line(lines[i]).trim().startsWith(fence[1])) i++;
    const code = make("code");
    if (i > begin) this.highlight(code, lines[begin][0], lines[i - 1][1]);
    const text = i > begin ? this.text.slice(lines[begin][0], lines[i - 1][1]) : "";
    const pre = make("pre", { tabIndex: 0 }, code);
    pre.setAttribute("aria-label", `Code ${fence[2]}`.trim());
    node.append(pre, copier("Copy code", () => text));
    return i + 1;
  }

  // Strings, comments, numbers and frequent words of most languages.
  highlight(node, a, b) {
    const known = /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|((?:#|\/\/)[^\n]*|\/\*[^]*?\*\/)|\b(\d[\w.]*)\b|\b(async|await|break|case|catch|class|const|continue|def|del|do|elif|else|enum|except|export|extends|False|false|finally|fn|for|from|func|function|if|impl|import|in|interface|is|lambda|let|match|mut|new|nil|None|not|null|or|and|pass|private|public|raise|return|self|static|struct|super|switch|this|throw|True|true|try|type|var|void|while|with|yield)\b/g;
    const text = this.text.slice(a, b);
    let at = 0;
    for (const found of text.matchAll(known)) {
      this.paint(node, a + at, a + found.index);
      at = found.index + found[0].length;
      const kind = ["s", "c", "n", "w"][[1, 2, 3, 4].findIndex((group) => found[group] !== undefined)];
      this.paint(node.appendChild(make("span", { className: kind })), a + found.index, a + at);
    }
    this.paint(node, a + at, b);
  }

  list(node, lines, i) {
    const item = /^(\s*)([-*+]|\d{1,9}[.)])\s+/;
    const first = this.line(lines[i]).match(item);
    const ordered = /\d/.test(first[2]);
    const list = node.appendChild(make(ordered ? "ol" : "ul"));
    if (ordered) list.start = parseInt(first[2], 10);
    for (; i < lines.length; i++) {
      const line = this.line(lines[i]), found = line.match(item);
      if (!found) {
        if (!line.trim() || !/^\s/.test(line) || !list.lastChild) break;
        list.lastChild.append(make("br"));
        this.inline(list.lastChild, ...lines[i]);
      } else if (/\d/.test(found[2]) !== ordered && found[1].length <= first[1].length) {
        break;
      } else {
        this.inline(list.appendChild(make("li")), lines[i][0] + found[0].length, lines[i][1]);
      }
    }
    return i;
  }

  quote(node, lines, i) {
    const quote = node.appendChild(make("blockquote"));
    for (; i < lines.length && this.line(lines[i]).startsWith(">"); i++) {
      const lead = this.line(lines[i]).match(/^>\s?/)[0].length;
      this.inline(quote.appendChild(make("div")), lines[i][0] + lead, lines[i][1]);
    }
    return i;
  }

  table(node, lines, i) {
    const table = node.appendChild(make("table"));
    for (let row = 0; i < lines.length && this.line(lines[i]).includes("|"); i++, row++) {
      if (row === 1) continue;  // the rule below the head
      const tr = table.appendChild(make("tr"));
      let [a, b] = lines[i];
      while (/[\s|]/.test(this.text[a] || "x") && a < b) a++;
      while (b > a && /[\s|]/.test(this.text[b - 1])) b--;
      for (let end; a <= b; a = end + 1) {
        end = this.text.indexOf("|", a);
        if (end < 0 || end > b) end = b;
        this.inline(tr.appendChild(make(row ? "td" : "th")), a, end);
      }
    }
    return i;
  }

  // Code, strong, emphasis and links between letters a and b.
  inline(node, a, b) {
    const known = /(`+)([^]*?[^`])\1(?!`)|\*\*(?=\S)([^]*?\S)\*\*|(?<![\w*])\*(?=[^\s*])([^*]*?[^\s*])\*(?!\w)|(?<!\w)_(?=[^\s_])([^_]*?[^\s_])_(?!\w)|\[([^\]\n]+)\]\((https?:\/\/[^\s()<>]+)\)/g;
    const text = this.text.slice(a, b);
    let at = 0;
    for (const found of text.matchAll(known)) {
      this.paint(node, a + at, a + found.index);
      at = found.index + found[0].length;
      const group = [2, 3, 4, 5, 6].find((one) => found[one] !== undefined);
      const begin = a + found.index + (group === 2 ? found[1].length : group === 3 ? 2 : 1);
      const end = begin + found[group].length;
      if (group === 2) this.paint(node.appendChild(make("code")), begin, end);
      else if (group === 6) {
        const link = make("a", { href: found[7], rel: "noopener noreferrer", target: "_blank" });
        this.paint(node.appendChild(link), begin, end);
      } else this.inline(node.appendChild(make(group === 3 ? "strong" : "em")), begin, end);
    }
    this.paint(node, a + at, b);
  }
}

function copier(label, text) {
  const button = make("button", { type: "button" }, label);
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text()); } catch { byHand(text()); }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  });
  return button;
}

function byHand(text) {
  const field = document.body.appendChild(make("textarea", { value: text }));
  field.select();
  document.execCommand("copy");
  field.remove();
}

// --- asking ---------------------------------------------------------------------------------------

const talk = [];  // {role, content, timings?}
let running = null;  // AbortController of what is asked

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

// Streams an answer into `words`; returns its timings.
async function answer(messages, how, words, shown, signal) {
  const system = $("system").value.trim();
  const body = {
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    stream: true, show_drafted: true, speculative: how,
    max_tokens: Number($("tokens").value) || 256, temperature: Number($("temperature").value) || 0,
  };
  const response = await fetch("v1/chat/completions",
    { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(await reason(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "", timings = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ") || event === "data: [DONE]") continue;
      const chunk = JSON.parse(event.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      timings = chunk.timings || timings;
      const delta = chunk.choices[0] ? chunk.choices[0].delta : {};
      if (delta.reasoning_content) words.thought += delta.reasoning_content;
      if (delta.content) words.add(delta.content, chunk.edgespec && chunk.edgespec.drafted);
    }
    shown();
  }
  return timings;
}

async function reason(response) {
  try {
    const { error } = await response.json();
    if (response.status === 401) { $("settings").open = true; $("key").focus(); }
    return error.message;
  } catch { return `the server answered with status ${response.status}`; }
}

// --- showing --------------------------------------------------------------------------------------

function speed(timings) {
  if (!timings) return "";
  const parts = [`${timings.predicted_n} tokens`, `${timings.predicted_per_second.toFixed(1)} tokens/s`];
  if (timings.times_plain) parts.push(`${timings.times_plain.toFixed(2)} times plain`);
  if (timings.tested_n) parts.push(`${Math.round(100 * timings.draft_n_accepted / timings.tested_n)} % of drafted accepted`);
  if (timings.paused) parts.push(timings.paused);
  return parts.join(", ");
}

// Of the drafted tokens that were tested, those accepted, by their place in the draft.
function chart(timings) {
  const tested = timings ? timings.tested_by_position : [];
  if (!tested.length) return "";
  const kind = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(kind, "svg");
  const add = (tag, more, text = "") => {
    const node = document.createElementNS(kind, tag);
    for (const [name, value] of Object.entries(more)) node.setAttribute(name, value);
    node.textContent = text;
    svg.append(node);
  };
  const shares = tested.map((n, i) => (n ? timings.accepted_by_position[i] / n : 0));
  svg.setAttribute("class", "chart");
  svg.setAttribute("width", 24 * tested.length);
  svg.setAttribute("height", 62);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Accepted by position: "
    + shares.map((one, i) => `${i + 1}: ${Math.round(100 * one)} % of ${tested[i]}`).join(", "));
  shares.forEach((share, i) => {
    add("rect", { class: "all", x: 24 * i + 2, y: 2, width: 18, height: 46 });
    add("rect", { x: 24 * i + 2, y: 48 - 46 * share, width: 18, height: 46 * share });
    add("text", { x: 24 * i + 11, y: 60, "text-anchor": "middle" }, String(i + 1));
  });
  return svg;
}

function show(words, node) {
  const inner = [];
  if (words.thought.trim()) inner.push(make("div", { className: "thought" }, words.thought));
  const said = make("div", { className: "words" });
  words.render(said);
  node.replaceChildren(...inner, said);
}

function foot(words, timings) {
  const line = make("div", { className: "foot" }, copier("Copy", () => words.text), speed(timings));
  return [line, chart(timings)].filter(Boolean);
}

// Draws at most once a frame.
function painter(words, node) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      if (!node.dataset.done) { show(words, node); follow(); }
    });
  };
}

function follow() {
  const main = $("talk");
  if (main.scrollHeight - main.scrollTop - main.clientHeight < 160) main.scrollTop = main.scrollHeight;
}

function add(message) {
  const node = $("talk").appendChild(make("article", { className: message.role }));
  node.setAttribute("aria-label", message.role === "user" ? "You" : "Model");
  if (message.role === "user") { node.textContent = message.content; return node; }
  const words = new Words();
  words.add(message.content, false);
  if (message.drafted) words.drafted = message.drafted;
  if (message.content) { show(words, node); node.append(...foot(words, message.timings)); }
  return node;
}

function tell(text) { $("notice").textContent = text; }

function busy(controller) {
  running = controller;
  for (const id of ["send", "compare", "clear"]) $(id).disabled = Boolean(controller);
  $("stop").disabled = !controller;
  $("again").disabled = Boolean(controller) || !talk.some((one) => one.role === "assistant");
  $("talk").setAttribute("aria-busy", String(Boolean(controller)));
}

function keep() {
  try { sessionStorage.setItem("edgespec", JSON.stringify(talk)); } catch { /* full or forbidden */ }
}

// What the model is told of the conversation.
const told = () => talk.map(({ role, content }) => ({ role, content }));

// A question without an answer leaves the conversation, for two in a row no model has learned, and
// goes back to where it can be sent again.
function takeBack() {
  if (!talk.length || talk[talk.length - 1].role !== "user") return;
  const { content } = talk.pop(), typed = $("question").value;
  $("talk").lastElementChild.remove();
  if (!typed.includes(content)) $("question").value = typed.trim() ? `${content}\n${typed}` : content;
}

// before: answers that this one takes the place of; they come back if there is none.
async function reply(before = []) {
  const words = new Words(), node = add({ role: "assistant", content: "" });
  const controller = new AbortController();
  busy(controller);
  tell("answering");
  let timings = null, ended = "";
  try {
    timings = await answer(told(), $("speculative").value, words, painter(words, node), controller.signal);
  } catch (error) {
    ended = error.name === "AbortError" ? "stopped" : error.message;
  }
  node.dataset.done = "1";
  if (words.text || words.thought) {
    talk.push({ role: "assistant", content: words.text, drafted: words.drafted, timings });
    show(words, node);
    node.append(...foot(words, timings));
  } else {
    ended = ended || "the answer is empty";
    node.remove();
    for (const one of before) { talk.push(one); add(one); }
    takeBack();
  }
  tell(ended);
  keep();
  busy(null);
  follow();
}

async function send(event) {
  event.preventDefault();
  const text = $("question").value.trim();
  if (!text || running) return;
  $("question").value = "";
  $("both").hidden = true;
  talk.push({ role: "user", content: text });
  add(talk[talk.length - 1]);
  keep();
  follow();
  await reply();
}

async function again() {
  if (running) return;
  const before = [];
  while (talk.length && talk[talk.length - 1].role === "assistant") {
    before.unshift(talk.pop());
    $("talk").lastElementChild.remove();
  }
  if (talk.length) await reply(before);
}

// The same question with and without drafting, one after the other: they would share the device.
async function compare() {
  const text = $("question").value.trim();
  const messages = told();
  if (text) messages.push({ role: "user", content: text });
  else while (messages.length && messages[messages.length - 1].role === "assistant") messages.pop();
  if (!messages.length || running) { tell("Write a question first."); return; }
  const chosen = $("speculative").value === "off" ? "auto" : $("speculative").value;
  const both = $("both"), controller = new AbortController();
  both.replaceChildren();
  both.hidden = false;
  busy(controller);
  const results = [];
  try {
    for (const [title, how] of [["With drafting", chosen], ["Without", "off"]]) {
      const words = new Words(), node = make("div"), rate = make("div", { className: "speed" }, "…");
      const panel = both.appendChild(make("div", { className: "panel" }, make("h2", {}, title), rate, node));
      tell(`${title.toLowerCase()} …`);
      const timings = await answer(messages, how, words, painter(words, node), controller.signal);
      node.dataset.done = "1";
      show(words, node);
      rate.textContent = `${timings.predicted_per_second.toFixed(1)} tokens/s`;
      panel.append(...foot(words, timings));
      results.push({ words, timings });
    }
    const [one, other] = results;
    const times = one.timings.predicted_per_second / other.timings.predicted_per_second;
    const same = one.words.text === other.words.text ? "the same text" : "texts that differ: numbers were tied, or they were sampled";
    both.append(make("p", {}, `${times.toFixed(2)} times the speed, ${same}.`));
    tell("");
  } catch (error) {
    tell(error.name === "AbortError" ? "stopped" : error.message);
  }
  busy(null);
}

function exported() {
  const text = JSON.stringify({ model: $("model").textContent, messages: talk }, null, 1);
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })) });
  link.download = "conversation.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function clear() {
  talk.length = 0;
  $("talk").replaceChildren();
  $("both").hidden = true;
  keep();
  busy(null);
  $("question").focus();
}

async function name() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (response.ok) $("model").textContent = (await response.json()).data[0].id;
    else tell(await reason(response));
  } catch { tell("the server does not answer"); }
}

function start() {
  try { talk.push(...JSON.parse(sessionStorage.getItem("edgespec") || "[]")); } catch { /* none */ }
  talk.forEach(add);
  takeBack();  // what was asked when the page was left
  keep();
  const tint = () => document.body.classList.toggle("tinted", $("tint").checked);
  tint();
  $("tint").addEventListener("change", tint);
  $("key").addEventListener("change", name);
  $("ask").addEventListener("submit", send);
  $("stop").addEventListener("click", () => running && running.abort());
  $("again").addEventListener("click", again);
  $("compare").addEventListener("click", compare);
  $("export").addEventListener("click", exported);
  $("clear").addEventListener("click", clear);
  $("choices").addEventListener("submit", (event) => event.preventDefault());
  $("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $("ask").requestSubmit();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (running) running.abort();
    else $("settings").open = false;
  });
  busy(null);
  name();
  $("question").focus();
}

start();
