// Draws every chart at the width that its box has, and again where that changes; `data-drawn` tells the width.
(() => {
  const GAP = 18, LABELS = 46; // px, of small multiples
  const fit = (spec, width) => {
    if (!spec.facet) return spec;
    const narrowest = width < 500 ? 135 : 175;
    const columns = Math.max(1, Math.floor((width - LABELS + GAP) / (narrowest + GAP)));
    const side = Math.floor((width - LABELS - (columns - 1) * GAP) / columns);
    return { ...spec, columns, spec: { ...spec.spec, width: side } };
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const draw = async (box) => {
    const width = box.clientWidth;
    const spec = JSON.parse(document.getElementById(box.dataset.chart).textContent);
    const tooltip = { theme: dark.matches ? "dark" : "light" };
    await vegaEmbed(box, fit(spec, width), { renderer: "svg", actions: false, tooltip });
    box.querySelector("svg").setAttribute("aria-label", box.dataset.name);
    box.dataset.drawn = width;
  };
  const waiting = new Map();
  const widths = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (Number(target.dataset.drawn) === target.clientWidth) continue;
      clearTimeout(waiting.get(target));
      waiting.set(target, setTimeout(() => draw(target), 150));
    }
  });
  const boxes = [...document.querySelectorAll("[data-chart]")];
  Promise.all(boxes.map(draw)).then(() => boxes.forEach((box) => widths.observe(box)));
  dark.addEventListener("change", () => boxes.forEach(draw));
})();
