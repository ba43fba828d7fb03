"use strict";
const $ = id => document.getElementById(id);
const make = (tag, props = {}, ...children) => { const e = Object.assign(document.createElement(tag), props); e.append(...children); return e; };

// ---- The chat ------------------------------------------------------------------------------------------------------
const SWITCH = /^\s*\/(?:no_?)?think(?!\S)|(?<!\S)\/(?:no_?)?think\s*$/i; // what the service reads in a message itself
const LIMITS = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, null];
let turns = [], running = null, chat = null;
const limit = () => LIMITS[$("budget").value];
function show() {
  $("amount").textContent = !$("think").checked ? "off" : limit() === null ? "no limit" : limit() + " tokens";
  $("budget").setAttribute("aria-valuetext", $("amount").textContent); $("budget").disabled = !$("think").checked; $("send").textContent = running ? "Stop" : "Send";
}
const headers = () => ({ "Content-Type": "application/json", ...(sessionStorage.key_ && { Authorization: "Bearer " + sessionStorage.key_ }) });
async function call(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers() });
  if (response.status === 401) {
    const key = prompt("This service wants an API key:"); if (key) { sessionStorage.key_ = key; return call(path, options); }
  }
  if (!response.ok) throw new Error((await response.json().catch(() => null))?.error?.message || "the service answered " + response.status);
  return response;
}
async function* events(response) {
  const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader(); let rest = "", ended = false;
  for (;;) {
    const { done, value } = await pieces.read().catch(error => { if (error.name === "AbortError") throw error; return { done: true }; });
    if (done) { if (ended) return; throw new Error("cut: the connection ended before the answer did"); }
    const parts = (rest + value).split("\n\n"); rest = parts.pop();
    for (const part of parts) if (part === "data: [DONE]") ended = true; else if (part.startsWith("data: ")) {
      const event = JSON.parse(part.slice(6)); if (event.error) throw new Error(event.error.message); yield event;
    }
  }
}

// ---- Earlier chats: kept in this browser and nowhere else ----------------------------------------------------------
const STORE = "nemo-reasoning-chats", MOST_CHATS = 50;
const stored = () => { try { return JSON.parse(localStorage.getItem(STORE)) || []; } catch { return []; } };
function keep() {
  const chats = stored().filter(one => one.id !== chat?.id);
  if (turns.length) { chat ||= { id: crypto.randomUUID?.() || String(Date.now() + Math.random()) }; chats.unshift({ ...chat, title: turns[0].content.slice(0, 60), turns }); }
  for (let most = Math.min(chats.length, MOST_CHATS); most >= 0; most--) // what does not fit goes, the oldest first
    try { localStorage.setItem(STORE, JSON.stringify(chats.slice(0, most))); break; } catch { continue; }
  list();
}
function list() {
  const chats = stored(), current = new Option(chat ? "" : "Earlier chats", ""); current.disabled = !!chat;
  $("chats").replaceChildren(...(chat ? [] : [current]), ...chats.map(one => new Option(one.title, one.id, false, one.id === chat?.id)));
  $("chats").disabled = !chats.length; $("forget").disabled = !chat;
}
function open(id) {
  const found = stored().find(one => one.id === id); if (!found) return;
  leave(); chat = { id }; turns = found.turns; $("log").replaceChildren();
  turns.forEach((one, at) => one.role === "user" ? own(one.content) : past(one, at)); tools(); list(); $("log").scrollTop = $("log").scrollHeight;
}
function leave() { running?.abort("new chat"); running = null; turns = []; chat = null; show(); }
function fresh(hint) { leave(); list(); $("log").replaceChildren(make("p", { className: "hint", textContent: hint })); $("ask").focus(); }
const own = text => $("log").append(make("div", { className: "turn own", textContent: text }));
function past(one) {
  const turn = newTurn(); turn.article.ariaBusy = "false"; turn.words = one.content; markdown(one.content, turn.answer);
  if (one.reasoning) { turn.box.hidden = turn.box.open = false; turn.box.open = false; turn.thought.textContent = one.reasoning; turn.summary.textContent = "Thought"; }
  turn.stats.textContent = one.stats || ""; turn.stats.classList.toggle("wrong", !!one.wrong);
}
async function copy(text, button) {
  try { await navigator.clipboard.writeText(text); } catch { // pages without TLS have no clipboard
    const field = make("textarea", { value: text }); document.body.append(field); field.select(); document.execCommand("copy"); field.remove();
  }
  button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500);
}
function tools() { // under each answer, and a second try under the last one
  const articles = [...$("log").querySelectorAll("article")];
  articles.forEach((article, at) => {
    article.querySelector(".tools")?.remove();
    if (article.ariaBusy === "true") return;
    const bar = make("div", { className: "tools" }), words = article.words();
    if (words) { const button = make("button", { type: "button", textContent: "Copy" }); button.onclick = () => copy(words, button); bar.append(button); }
    if (at === articles.length - 1 && !running) bar.append(make("button", { type: "button", textContent: "Retry", onclick: retry }));
    if (bar.childNodes.length) article.append(bar);
  });
}
function retry() {
  const log = $("log"), asked = [...log.querySelectorAll(".own")].at(-1); if (!asked || running) return;
  while (asked.nextSibling) asked.nextSibling.remove();
  if (turns.at(-1)?.role === "assistant") turns = turns.slice(0, -2);
  const text = asked.textContent; asked.remove(); if ($("ask").value === text) $("ask").value = ""; ask(text);
}
function newTurn() {
  const turn = { thought: make("div", { className: "thought" }), summary: make("summary", { textContent: "Thinking…" }),
    answer: make("div", { className: "answer" }), stats: make("div", { className: "stats" }), words: "", reasoning: "", usage: null, begun: performance.now() };
  turn.box = make("details", { open: true, hidden: true }, turn.summary, turn.thought);
  turn.article = make("article", { className: "turn", ariaBusy: "true" }, turn.box, turn.answer, turn.stats); // read out when it is whole
  turn.article.words = () => turn.words; $("log").append(turn.article); return turn;
}
function hear(turn, event) {
  if (event.usage) turn.usage = event.usage;
  const delta = event.choices[0]?.delta; if (!delta) return;
  if (delta.reasoning) { turn.reasoning += delta.reasoning; turn.box.hidden = false; turn.thought.textContent = turn.reasoning; }
  if (delta.content) {
    if (!turn.words && turn.reasoning) { turn.box.open = false; turn.summary.textContent = "Thought for " + seconds(turn); }
    turn.words += delta.content; markdown(turn.words, turn.answer);
  }
  if (event.choices[0].finish_reason === "length") turn.cut = true;
}
const seconds = turn => ((performance.now() - turn.begun) / 1000).toFixed(1) + " s";
function count(turn) {
  const u = turn.usage; if (!u) { turn.stats.textContent = seconds(turn); return; }
  const rate = u.completion_tokens / ((performance.now() - turn.begun) / 1000);
  turn.stats.textContent = `${u.completion_tokens} tokens, ${u.completion_tokens_details.reasoning_tokens} of thinking, ${seconds(turn)}, ${rate.toFixed(0)} tokens/s` + (turn.cut ? ", cut at the limit" : "");
}
function follow(task) { const log = $("log"), low = log.scrollHeight - log.scrollTop - log.clientHeight < 60; task(); if (low) log.scrollTop = log.scrollHeight; }
async function ask(text) {
  $("log").querySelector(".hint")?.remove();
  own(text); const switched = SWITCH.test(text);
  const turn = newTurn(), messages = [...turns.map(({ role, content }) => ({ role, content })), { role: "user", content: text }], think = $("think").checked;
  const body = { model: $("model").value, messages, stream: true, stream_options: { include_usage: true } };
  if (!switched) body.chat_template_kwargs = { enable_thinking: think }; // else the message says it
  if (!switched && think && limit() !== null) body.thinking_token_budget = limit();
  const control = running = new AbortController(), before = turns; tools(); show(); count(turn); $("log").scrollTop = $("log").scrollHeight;
  const note = wrong => { turns = [...before, { role: "user", content: text }, { role: "assistant", content: turn.words, reasoning: turn.reasoning, stats: turn.stats.textContent, wrong }]; keep(); };
  const clock = setInterval(() => count(turn), 100);
  try {
    const response = await call("/v1/chat/completions", { method: "POST", body: JSON.stringify(body), signal: control.signal });
    for await (const event of events(response)) follow(() => hear(turn, event));
    follow(() => count(turn)); note();
  } catch (error) {
    if (control.signal.reason === "new chat") return; // nothing of it is kept
    const stopped = control.signal.aborted;
    if (!stopped) turn.stats.setAttribute("role", "alert");
    follow(() => { turn.stats.textContent = stopped ? "stopped" : error.message; turn.stats.classList.toggle("wrong", !stopped); });
    if (turn.words) note(!stopped); else if (!stopped) $("ask").value = text;
  } finally { clearInterval(clock); }
  turn.summary.textContent = turn.summary.textContent.replace("Thinking…", "Thought for " + seconds(turn));
  turn.article.ariaBusy = "false"; running = null; show(); tools(); $("ask").focus();
}
function submit() {
  if (running) { running.abort(); return; }
  const text = $("ask").value.trim(); if (text) { $("ask").value = ""; ask(text); }
}
$("form").addEventListener("submit", event => { event.preventDefault(); submit(); });
$("ask").addEventListener("keydown", event => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !running) { event.preventDefault(); submit(); } });
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && running) running.abort();
  if (event.altKey && event.code === "KeyT") { event.preventDefault(); $("think").click(); }
  if (event.altKey && event.code === "KeyN") { event.preventDefault(); $("fresh").click(); }
});
for (const id of ["think", "budget"]) $(id).addEventListener("input", show);
$("fresh").addEventListener("click", () => fresh("Ask something new."));
$("chats").addEventListener("change", () => open($("chats").value));
$("forget").addEventListener("click", () => { turns = []; keep(); fresh("Forgotten. Ask something new."); });
call("/v1/models").then(r => r.json()).then(({ data }) => $("model").append(...data.map(m => new Option(m.id, m.id))))
  .catch(error => $("log").append(make("p", { className: "hint wrong", textContent: error.message })));
show(); list();
