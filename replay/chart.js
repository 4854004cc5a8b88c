// Draws each chart from the figures that stand in the page. Colours are read from the style sheet whenever it is drawn, so
// that light, dark and paper are one way through.
const draw = (id, { events, unit, top, x, lines, notes, swaps }) => {
  const place = document.getElementById(id);
  const note = document.getElementById(`${id}-note`);
  const legend = [...document.querySelectorAll(`#${id}-legend button`)];
  const FONT = "13px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
  const PAPER_PX = 640; // what A4 has between its margins

  const root = document.documentElement;
  const colour = (name) => () => getComputedStyle(root).getPropertyValue(`--${name}`);
  const words = unit === "share"
    ? { figure: (share) => `${(100 * share).toFixed(1)} %`, tick: (share) => `${Math.round(100 * share)} %` }
    : { figure: (weight) => weight.toFixed(2), tick: (weight) => weight.toFixed(2) };
  const told = (value) => (value === null ? "–" : words.figure(value));
  const size = () => {
    const width = root.classList.contains("paper") ? PAPER_PX : place.clientWidth;
    return { width, height: Math.round(Math.min(420, Math.max(240, width / 2))) };
  };

  // One Path2D of a line's symbol at each of its points.
  const symbols = (shape) => (plot, series, from, to) => {
    const path = new Path2D(), scale = uPlot.pxRatio;
    for (let i = from; i <= to; i++) {
      const value = plot.data[series][i];
      if (value === null) continue;
      const e = plot.valToPos(plot.data[0][i], "x", true), f = plot.valToPos(value, "y", true);
      path.addPath(new Path2D(shape), { a: scale, d: scale, e, f });
    }
    return { stroke: path, fill: path };
  };

  const line = ({ key, width, dash, symbol, shown }) => ({
    stroke: colour(key), width, dash, show: shown,
    points: { space: 36, stroke: colour(key), fill: colour("card"), width: 1.8, dash: [], paths: symbols(symbol) },
  });

  const axis = (label, more) => ({
    stroke: colour("quiet"), font: FONT, values: (_, splits) => splits.map(label),
    grid: { stroke: colour("grid"), width: 1 }, ticks: { stroke: colour("grid"), width: 1, size: 6 }, ...more,
  });

  // A mark at the foot of the plot for each swap.
  const drawSwaps = ({ ctx, bbox, valToPos }) => {
    ctx.save();
    ctx.strokeStyle = colour("ours")();
    ctx.lineWidth = 2 * uPlot.pxRatio;
    ctx.setLineDash([]);
    ctx.beginPath();
    for (const at of swaps) {
      const left = valToPos(at, "x", true);
      ctx.moveTo(left, bbox.top + bbox.height);
      ctx.lineTo(left, bbox.top + bbox.height - 12 * uPlot.pxRatio);
    }
    ctx.stroke();
    ctx.restore();
  };

  // The figures of one window: beside the legend, and for whoever listens.
  const tell = (window) => {
    note.textContent = notes[window];
    lines.forEach(({ values }, i) => { legend[i].querySelector("output").textContent = told(values[window]); });
    place.setAttribute("aria-valuenow", window + 1);
    place.setAttribute("aria-valuetext", `${notes[window]}: ${lines.map((one) => `${one.name} ${told(one.values[window])}`).join(", ")}`);
  };

  const last = x.length - 1;
  const plot = new uPlot({
    ...size(),
    padding: [10, 24, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: true, y: false, setScale: true }, points: { fill: colour("card") } },
    scales: { x: { time: false, range: (_, min, max) => (min === x[0] && max === x[last] ? [0, events] : [min, max]) }, y: { range: [0, top] } },
    axes: [axis((value) => value.toLocaleString("en"), { size: 34 }), axis(words.tick, { size: 56 })],
    series: [{}, ...lines.map(line)],
    hooks: { draw: [drawSwaps], setCursor: [({ cursor }) => tell(cursor.idx ?? last)] },
  }, [x, ...lines.map(({ values }) => values)], place);

  legend.forEach((button, i) => button.addEventListener("click", () => {
    const show = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", show);
    plot.setSeries(i + 1, { show });
  }));

  const steps = { ArrowLeft: (i) => i - 1, ArrowRight: (i) => i + 1, Home: () => 0, End: () => last };
  Object.entries({ role: "slider", tabindex: 0, "aria-valuemin": 1, "aria-valuemax": x.length })
    .forEach(([name, value]) => place.setAttribute(name, value));
  place.addEventListener("keydown", (event) => {
    if (event.key === "Escape") plot.setData(plot.data);
    if (!(event.key in steps)) return;
    event.preventDefault();
    const [from, to] = plot.series[0].idxs;
    const window = Math.min(to, Math.max(from, steps[event.key](plot.cursor.idx ?? last)));
    plot.setCursor({ left: plot.valToPos(x[window], "x"), top: plot.valToPos(lines[0].values[window] ?? 0, "y") });
  });

  const paper = (on) => {
    root.classList.toggle("paper", on);
    plot.setSize(size());
  };
  new ResizeObserver(() => plot.setSize(size())).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw());
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  tell(last);
};

for (const data of document.querySelectorAll("script[type='application/json']")) {
  draw(data.id.replace(/-data$/, ""), JSON.parse(data.textContent));
}
