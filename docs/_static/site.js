// A button that copies a block of code, without the prompts and the output of a console session.
document.querySelectorAll("div.highlight > pre").forEach((block) => {
  const language = block.parentElement.parentElement.className;
  if (/highlight-(output|text)/.test(language) || !navigator.clipboard) return;
  const button = document.createElement("button");
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    let text = block.textContent;
    if (/highlight-console/.test(language)) {
      const commands = text.split("\n").filter((line) => /^[$>] /.test(line));
      text = commands.map((line) => line.slice(2) + "\n").join("");
    }
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  block.parentElement.append(button);
});

// Long names in tables may be broken after an underscore or before colons, and nowhere else.
document.querySelectorAll("table.docutils code").forEach((code) => {
  if (code.textContent.length < 30) return;
  code.innerHTML = code.innerHTML.replace(/_/g, "_<wbr>").replace(/(?<=\w)::/g, "<wbr>::");
});

// On a narrow screen a row of a wide table is a list: each cell with its heading.
document.querySelectorAll("table.docutils").forEach((table) => {
  const headings = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent);
  if (headings.length < 3) return;
  table.classList.add("wide");
  table.querySelectorAll("tbody tr").forEach((row) => {
    [...row.children].forEach((cell, column) => {
      if (column) cell.dataset.heading = headings[column];
      if (!cell.textContent.trim()) cell.classList.add("empty");
    });
  });
});
