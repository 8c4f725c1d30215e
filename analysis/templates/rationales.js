const list = document.getElementById("documents");
const buttons = document.querySelectorAll("[data-sort]");
for (const button of buttons) {
  button.addEventListener("click", () => {
    const key = button.dataset.sort;
    const order = button.dataset.order === "up" ? 1 : -1;
    const value = (item) => Number(item.dataset[key]);
    [...list.children].sort((a, b) => order * (value(a) - value(b))).forEach((item) => list.append(item));
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    document.getElementById("sorted").textContent = "Sorted: " + button.textContent.trim() + ".";
  });
}
