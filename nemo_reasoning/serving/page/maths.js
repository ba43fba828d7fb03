// ---- LaTeX to MathML: the part of it that models write -------------------------------------------------------------
const MATHML = "http://www.w3.org/1998/Math/MathML";
const SYMBOLS = Object.fromEntries(("alpha α beta β gamma γ delta δ epsilon ε zeta ζ eta η theta θ lambda λ mu μ nu ν xi ξ pi π rho ρ sigma σ " +
  "tau τ phi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Pi Π Sigma Σ Phi Φ Psi Ψ Omega Ω times × cdot · div ÷ pm ± mp ∓ " +
  "lt < gt > le ≤ leq ≤ ge ≥ geq ≥ ne ≠ neq ≠ approx ≈ equiv ≡ sim ∼ infty ∞ to → rightarrow → Rightarrow ⇒ implies ⇒ iff ⇔ leftarrow ← " +
  "in ∈ notin ∉ subset ⊂ subseteq ⊆ cup ∪ cap ∩ emptyset ∅ forall ∀ exists ∃ neg ¬ land ∧ lor ∨ partial ∂ nabla ∇ sum ∑ prod ∏ int ∫ " +
  "ldots … dots … cdots ⋯ angle ∠ degree ° circ ∘ mid ∣ lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉ langle ⟨ rangle ⟩").split(" ").map((w, i, a) => [w, a[i + 1]]).filter((_, i) => i % 2 === 0));
const SPACES = { ",": ".17em", ";": ".28em", ":": ".22em", "!": "0em", quad: "1em", qquad: "2em", " ": ".25em" };
const BIG = "∑∏∫";
const el = (tag, ...children) => { const e = document.createElementNS(MATHML, tag); e.append(...children); return e; };

function latex(source, block) {
  const tokens = source.match(/\\[a-zA-Z]+|\\.|\s+|\d+(?:\.\d+)?|[^]/gu) || [];
  let at = 0;
  const skip = () => { while (/^\s+$/.test(tokens[at] || "")) at++; };
  const group = () => { skip(); if (tokens[at] !== "{") return atom() || el("mrow"); at++; const inner = row("}"); at++; return inner; };
  const words = () => { skip(); if (tokens[at] !== "{") return tokens[at++] || ""; let text = "", depth = 1; at++;
    while (at < tokens.length) { const t = tokens[at++]; if (t === "{") depth++; if (t === "}" && !--depth) break; text += t; } return text; };
  const fence = () => { skip(); const t = tokens[at++] || "."; return t === "." ? "" : t[0] === "\\" ? SYMBOLS[t.slice(1)] || t.slice(1) : t; };
  const BREAKS = ["&", "\\\\", "\\end"];
  const grid = () => { const lines = [[row(...BREAKS)]];
    while (tokens[at] === "&" || tokens[at] === "\\\\") { const beside = tokens[at++] === "&", cell = row(...BREAKS); if (beside) lines.at(-1).push(cell); else lines.push([cell]); }
    if (!lines.at(-1).some(cell => cell.childNodes.length)) lines.pop(); return lines; };
  const table = (lines, kind) => { const t = el("mtable", ...lines.map(cells => el("mtr", ...cells.map(cell => el("mtd", cell)))));
    t.setAttribute("class", /^(align|split|gather)/.test(kind) ? "aligned" : kind); t.setAttribute("displaystyle", "true"); return t; };
  const FENCES = { pmatrix: "()", bmatrix: "[]", Bmatrix: "{}", vmatrix: "||", cases: "{" };
  function environment() {
    const kind = words().replace("*", ""); if (kind === "array") words();
    const [open = "", close = ""] = FENCES[kind] || "", lines = grid(); if (tokens[at] === "\\end") { at++; words(); }
    return el("mrow", ...(open ? [el("mo", open)] : []), table(lines, kind), ...(close ? [el("mo", close)] : []));
  }
  function command(name) {
    if (name === "begin") return environment(); if (/^(displaystyle|limits|nolimits|big|Big|bigg|Bigg)$/.test(name)) return el("mrow");
    if (/^[dt]?frac$/.test(name)) return el("mfrac", group(), group());
    if (name === "sqrt") { skip(); if (tokens[at] !== "[") return el("msqrt", group()); at++; const index = row("]"); at++; return el("mroot", group(), index); }
    if (/^(text|mathrm|textbf|mathbf|operatorname|mathbb|mathcal)$/.test(name)) return el("mtext", words());
    if (name === "boxed") { const box = el("mrow", group()); box.setAttribute("style", "border:1px solid;padding:.15em .3em"); return box; }
    if (name === "overline" || name === "bar") return over(group(), "¯"); if (name === "hat") return over(group(), "^"); if (name === "vec") return over(group(), "→");
    if (name === "left" || name === "right") return el("mo", fence());
    if (name in SPACES) { const space = el("mspace"); space.setAttribute("width", SPACES[name]); return space; }
    if (name in SYMBOLS) return el(/[a-zA-Z\u0370-\u03ff∞∅…⋯°]/u.test(SYMBOLS[name]) ? "mi" : "mo", SYMBOLS[name]);
    if (/^(sin|cos|tan|log|ln|exp|lim|max|min|gcd|mod|bmod)$/.test(name)) return el("mi", name === "bmod" ? "mod" : name);
    return el("mtext", /^[a-zA-Z]/.test(name) ? "\\" + name : name);
  }
  const over = (base, mark) => { const e = el("mover", base, el("mo", mark)); e.setAttribute("accent", "true"); return e; };
  function atom() {
    skip(); const t = tokens[at]; if (t === undefined || t === "}" ) return null;
    if (t === "{") return group(); at++;
    if (t[0] === "\\") return command(t.slice(1));
    if (/^\d/.test(t)) return el("mn", t);
    return el(/\p{L}/u.test(t) ? "mi" : "mo", t === "-" ? "−" : t === "*" ? "∗" : t);
  }
  function row(...ends) {
    const parts = [];
    for (skip(); at < tokens.length && !ends.includes(tokens[at]); skip()) {
      if (tokens[at] === "^" || tokens[at] === "_" || tokens[at] === "'") { parts.push(scripts(parts.pop() || el("mrow"))); continue; }
      const next = atom(); if (next) parts.push(next); else at++;
    }
    return el("mrow", ...parts);
  }
  function scripts(base) {
    let up = null, down = null; const primes = [];
    for (skip(); ["^", "_", "'"].includes(tokens[at]); skip()) { const t = tokens[at++]; if (t === "'") primes.push(el("mo", "′")); else if (t === "^") up = group(); else down = group(); }
    if (primes.length) up = el("mrow", ...primes, ...(up ? [up] : []));
    const limits = BIG.includes(base.textContent) && block && base.textContent !== "∫";
    if (up && down) return el(limits ? "munderover" : "msubsup", base, down, up);
    return up ? el(limits ? "mover" : "msup", base, up) : el(limits ? "munder" : "msub", base, down);
  }
  const parts = [];
  while (at < tokens.length) { const lines = grid(); at++; parts.push(lines.length > 1 || lines[0]?.length > 1 ? table(lines, "aligned") : lines[0]?.[0] || el("mrow")); }
  const math = el("math", ...parts); if (block) math.setAttribute("display", "block");
  math.setAttribute("aria-label", source.trim()); return math;
}
