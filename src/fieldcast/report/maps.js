// A map's numbers are codes of 16 bits, deflated: value = code * step, and the lowest code is a missing value.
const NO_VALUE = -32768;

async function unpack(element) {
  const packed = Uint8Array.from(atob(element.dataset.codes), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const codes = new Int16Array(planes.length / 2);
  for (let at = 0; at < codes.length; at += 1) codes[at] = planes[at] | (planes[codes.length + at] << 8);
  return codes;
}

// The last two digits of a code say little where it is small.
function worded(code, step) {
  if (code === NO_VALUE) return "no value";
  const digits = Math.min(4, Math.max(1, Math.ceil(Math.log10(Math.abs(code) + 1))));
  return String(Number((code * step).toPrecision(digits))).replace("-", "\u2212");
}

function startMap(element) {
  const group = element.closest(".maps");
  const palette = JSON.parse(group.dataset.colours).map((name) =>
    [1, 3, 5].map((at) => parseInt(name.slice(at, at + 2), 16)));
  const missing = palette.pop();
  const half = (palette.length - 1) / 2;
  const levels = Number(group.dataset.levels);
  const rows = JSON.parse(group.dataset.rows);
  const columns = JSON.parse(group.dataset.columns);
  const readout = group.querySelector(".readout");
  const quiet = readout.textContent;
  const canvas = element.querySelector("canvas");
  const { width, height } = canvas;
  const step = Number(element.dataset.step);
  let codes = null;
  let shown = 0;
  let pointed = null;

  function paint(frame) {
    shown = frame;
    if (codes === null) return;
    const image = new ImageData(width, height);
    const start = frame * width * height;
    for (let at = 0; at < width * height; at += 1) {
      const code = codes[start + at];
      const place = Math.round((code * half) / levels);
      const colour = code === NO_VALUE ? missing : palette[half + Math.max(-half, Math.min(half, place))];
      image.data.set([...colour, 255], 4 * at);
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    say();
  }

  function say() {
    if (pointed === null || codes === null) return;
    const [row, column] = pointed;
    const code = codes[shown * width * height + row * width + column];
    const units = code === NO_VALUE ? "" : ` ${element.dataset.units}`;
    const where = `${rows[row]}, ${columns[column]}`;
    readout.textContent = `${element.dataset.name}: ${worded(code, step)}${units} at ${where}`;
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    const inside = (share, size) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
    pointed = [
      inside((event.clientY - box.top) / box.height, height),
      inside((event.clientX - box.left) / box.width, width),
    ];
    say();
  }

  element.addEventListener("pointermove", point);
  element.addEventListener("pointerdown", point);
  element.addEventListener("pointerleave", () => { pointed = null; readout.textContent = quiet; });
  unpack(element).then((found) => { codes = found; paint(shown); });
  return paint;
}

const MAP_WAIT = 350;

// A player of maps moves those inside it together.
function mapFrames(root, maps) {
  const labels = JSON.parse(root.dataset.labels);
  const painters = [...root.querySelectorAll(".map")].map((element) => maps.get(element));
  const waits = labels.map((_, at) => (at + 1 < labels.length ? MAP_WAIT : 3 * MAP_WAIT));
  return { labels, waits, paint: (frame) => painters.forEach((paint) => paint(frame)) };
}
