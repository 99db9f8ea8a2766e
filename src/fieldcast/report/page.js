document.querySelectorAll(".plotted").forEach(startChart);
const maps = new Map([...document.querySelectorAll(".map")].map((element) => [element, startMap(element)]));
const players = [...document.querySelectorAll(".player")].map((root) =>
  startPlayer(root, root.dataset.labels ? mapFrames(root, maps) : sheetFrames(root)));

// Keys go to the player that has the focus, else to the one nearest to the middle of the window.
function playerForKeys() {
  const focused = players.find((player) => player.root.contains(document.activeElement));
  if (focused) return focused;
  const middle = window.innerHeight / 2;
  const distance = (player) => {
    const box = player.root.getBoundingClientRect();
    const seen = box.height > 0 && box.bottom > 0 && box.top < window.innerHeight;
    return seen ? Math.abs((box.top + box.bottom) / 2 - middle) : Infinity;
  };
  return players.filter((player) => distance(player) < Infinity).sort((a, b) => distance(a) - distance(b))[0];
}

document.addEventListener("keydown", (event) => {
  const player = playerForKeys();
  const element = event.target;
  if (!player || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  const pressed = ["BUTTON", "SUMMARY", "A"].includes(element.tagName);
  const scrolls = element.tagName === "INPUT" || element.classList.contains("wide");
  if (event.key === " " && !pressed) player.toggle();
  else if (event.key === "ArrowRight" && !scrolls) player.step(1);
  else if (event.key === "ArrowLeft" && !scrolls) player.step(-1);
  else if (event.key === "Home" && player.root.contains(element)) player.jump(0);
  else if (event.key === "End" && player.root.contains(element)) player.jump(-1);
  else return;
  event.preventDefault();
});

// On paper everything is unfolded.
let unfolded = [];
window.addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  unfolded.forEach((element) => { element.open = true; });
});
window.addEventListener("afterprint", () => {
  unfolded.forEach((element) => { element.open = false; });
});
