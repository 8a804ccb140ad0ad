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
      const commands = text.split("\n").filter((line) => line.startsWith("$ "));
      text = commands.map((line) => line.slice(2) + "\n").join("");
    }
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  block.parentElement.append(button);
});
