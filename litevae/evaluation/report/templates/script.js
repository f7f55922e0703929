// The theme's button, and the sliders between original and reconstruction. Without it the page shows them side by side.
"use strict";
const root = document.documentElement;
root.classList.add("js");

const button = document.getElementById("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
const nameButton = () => (button.textContent = isDark() ? "Light" : "Dark");
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameButton();
});
prefersDark.addEventListener("change", nameButton);
nameButton();
button.hidden = false;

for (const item of document.querySelectorAll(".item")) {
  const original = item.querySelector(".original img");
  const stacks = [...item.querySelectorAll(".stack")].filter((stack) => original && stack.querySelector("img"));
  const inputs = stacks.map((stack) => stack.querySelector("input"));
  const show = (percent) => {
    item.style.setProperty("--at", `${percent}%`); // one position for all models of an image
    for (const input of inputs) {
      input.value = percent;
      input.setAttribute("aria-valuetext", `${percent} % original`);
    }
  };
  for (const [index, stack] of stacks.entries()) {
    const under = original.cloneNode();
    under.alt = "";
    stack.prepend(under);
    stack.classList.add("slides");
    inputs[index].addEventListener("input", () => show(inputs[index].value));
  }
  if (stacks.length) {
    item.classList.add("slides");
    show(50);
  }
}
