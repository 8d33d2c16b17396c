// Markdown of answers as DOM nodes. Text only ever becomes text nodes, so nothing a model writes is run.

const INLINE = /(`+)([\s\S]*?[^`])\1(?!`)|\*\*(\S(?:[\s\S]*?\S)?)\*\*|\*(\S(?:[^*\n]*?\S)?)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>()"'`*]*[^\s<>()"'`*.,;:!?])/;

export function render(text, into) {
  into.replaceChildren(...blocks(text.split("\n")));
}

function make(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

function inline(text) {
  const out = [];
  for (let found; (found = INLINE.exec(text)); text = text.slice(found.index + found[0].length)) {
    if (found.index) out.push(text.slice(0, found.index));
    if (found[1]) out.push(make("code", found[2].trim()));
    else if (found[3]) out.push(make("strong", ...inline(found[3])));
    else if (found[4]) out.push(make("em", ...inline(found[4])));
    else {
      const link = make("a", found[5] ?? found[7]);
      link.href = found[6] ?? found[7];
      link.rel = "noopener noreferrer";
      link.target = "_blank";
      out.push(link);
    }
  }
  if (text) out.push(text);
  return out;
}

function blocks(lines) {
  const out = [];
  let at = 0;
  const take = (test) => {
    const from = at;
    while (at < lines.length && test(lines[at])) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^\s*(```+|~~~+)\s*([\w+#.-]*)/.exec(line);
    const heading = /^(#{1,6})\s+(.*)/.exec(line);
    if (!line.trim()) at += 1;
    else if (fence) {
      at += 1;
      const code = take((l) => !l.trim().startsWith(fence[1]));
      at += 1;
      out.push(codeBlock(code.join("\n"), fence[2]));
    } else if (heading) {
      at += 1;
      out.push(make(`h${Math.min(6, heading[1].length + 2)}`, ...inline(heading[2])));
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      at += 1;
      out.push(make("hr"));
    } else if (/^\s*>/.test(line)) {
      out.push(make("blockquote", ...blocks(take((l) => /^\s*>/.test(l)).map((l) => l.replace(/^\s*> ?/, "")))));
    } else if (isItem(line)) out.push(list(take((l) => isItem(l) || /^\s{2,}\S/.test(l))));
    else if (line.includes("|") && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(lines[at + 1] ?? "")) {
      out.push(table(take((l) => l.includes("|"))));
    } else {
      const paragraph = [];
      while (at < lines.length && lines[at].trim() && (!paragraph.length || !beginsBlock(lines[at]))) {
        paragraph.push(lines[at]);
        at += 1;
      }
      out.push(make("p", ...inline(paragraph.join("\n"))));
    }
  }
  return out;
}

const isItem = (line) => /^\s*([-*+]|\d{1,9}[.)])\s+\S/.test(line);
const beginsBlock = (line) => /^\s*(```|~~~|>|#{1,6}\s)/.test(line) || isItem(line);

function list(lines) {
  const isOrdered = /^\s*\d/.test(lines[0]);
  const node = make(isOrdered ? "ol" : "ul");
  if (isOrdered) node.start = parseInt(lines[0], 10);
  const depth = lines[0].search(/\S/);
  const items = [];
  for (const line of lines) {
    if (isItem(line) && line.search(/\S/) <= depth + 1) items.push([line.replace(/^\s*([-*+]|\d+[.)])\s+/, "")]);
    else items.at(-1).push(line.replace(/^\s{2,4}/, ""));
  }
  for (const [first, ...rest] of items) {
    node.append(make("li", ...inline(first), ...blocks(rest)));
  }
  return node;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((c) => c.trim());
  const row = (tag, line) => make("tr", ...cells(line).map((c) => make(tag, ...inline(c))));
  const body = make("tbody", ...lines.slice(2).map((line) => row("td", line)));
  return make("table", make("thead", row("th", lines[0])), body);
}

function codeBlock(code, language) {
  const copy = make("button", "Copy");
  copy.type = "button";
  copy.setAttribute("aria-label", language ? `Copy the ${language} code` : "Copy the code");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  const pre = make("pre", make("code", code));
  pre.tabIndex = 0;
  const bar = make("div", make("span", language), copy);
  bar.className = "bar";
  const node = make("div", bar, pre);
  node.className = "code";
  return node;
}
