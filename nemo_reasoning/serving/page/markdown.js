// ---- Markdown, read by marked and built as nodes, never as HTML: what a model writes is text ----------------------
const MATH_BLOCK = /^(?:\$\$([^]+?)\$\$|\\\[([^]+?)\\\])/, MATH_INLINE = /^(?:\\\(([^]+?)\\\)|\$(?!\s)((?:[^$\\\n]|\\.)+?)(?<!\s)\$(?!\d))/;
const mathToken = (name, level, begin, pattern) => ({ name, level, start: text => { const at = text.search(begin); return at < 0 ? undefined : at; },
  tokenizer: text => { const found = text.match(pattern); return found ? { type: name, raw: found[0], source: found[1] ?? found[2] } : undefined; } });
const nothing = () => undefined; // HTML is text
const reader = new marked.Marked({ gfm: true, breaks: true, tokenizer: { html: nothing, tag: nothing }, extensions: [mathToken("mathBlock", "block", /\$\$|\\\[/, MATH_BLOCK), mathToken("mathBlock", "inline", /\$\$|\\\[/, MATH_BLOCK), mathToken("mathInline", "inline", /\\\(|\$/, MATH_INLINE)] });
const LINK = /^(?:https?:|mailto:)/i;
const plain = text => new DOMParser().parseFromString("<p>" + text.replace(/</g, "&lt;"), "text/html").body.textContent; // &amp; and the like
const NODES = {
  heading: t => nodes(t.tokens, make("h4")), paragraph: t => nodes(t.tokens, make("p")), blockquote: t => nodes(t.tokens, make("blockquote")),
  code: t => make("pre", {}, make("code", { textContent: t.text })), hr: () => make("hr"), br: () => make("br"), space: () => "",
  list: t => { const list = make(t.ordered ? "ol" : "ul"); if (t.ordered) list.start = t.start || 1; list.append(...t.items.map(item => nodes(item.tokens, make("li")))); return list; },
  table: t => make("div", { className: "wide" }, make("table", {}, make("thead", {}, row(t.header, "th")), make("tbody", {}, ...t.rows.map(cells => row(cells, "td"))))),
  strong: t => nodes(t.tokens, make("strong")), em: t => nodes(t.tokens, make("em")), del: t => nodes(t.tokens, make("del")), codespan: t => make("code", { textContent: t.text }),
  link: t => LINK.test(t.href) ? nodes(t.tokens, make("a", { href: t.href, target: "_blank", rel: "noopener noreferrer" })) : nodes(t.tokens, make("span")),
  image: t => t.raw, html: t => t.raw, checkbox: t => make("input", { type: "checkbox", checked: t.checked, disabled: true }),
  mathBlock: t => latex(t.source, true), mathInline: t => latex(t.source, false),
  text: t => t.tokens ? nodes(t.tokens, make("span")) : plain(t.raw), escape: t => t.text,
};
const row = (cells, tag) => make("tr", {}, ...cells.map(cell => nodes(cell.tokens, make(tag, { style: cell.align ? "text-align:" + cell.align : "" }))));
function nodes(tokens, into) { into.append(...(tokens || []).map(token => (NODES[token.type] || (t => t.raw))(token))); return into; }
function markdown(text, into) { into.replaceChildren(); nodes(reader.lexer(text), into); }
