// A chart that says under the pointer what its lines are worth there.
function startChart(element) {
  const { labels, places, lines, units, ends } = JSON.parse(element.dataset.values);
  const drawing = element.querySelector("svg");
  const readout = element.querySelector(".readout");
  const quiet = readout.textContent;
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  drawing.append(cursor);

  function point(event) {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
    let nearest = 0;
    places.forEach((place, at) => {
      if (Math.abs(place - x) < Math.abs(places[nearest] - x)) nearest = at;
    });
    cursor.setAttribute("d", `M${places[nearest]} ${ends[0]}V${ends[1]}`);
    const worth = (value) => (value === null ? "no value" : String(value).replace("-", "\u2212"));
    const said = lines.map(([name, values]) => `${name} ${worth(values[nearest])}`);
    readout.textContent = `${labels[nearest]}: ${said.join(", ")}${units && ` ${units}`}`;
  }

  if (!places.length) return;
  drawing.addEventListener("pointermove", point);
  drawing.addEventListener("pointerdown", point);
  drawing.addEventListener("pointerleave", () => {
    cursor.removeAttribute("d");
    readout.textContent = quiet;
  });
}

