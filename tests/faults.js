// What is wrong with the page's layout, as texts: boxes or labels over one another, empty ones, too wide ones.
() => {
  const faults = new Set();
  const start = (element) => element.outerHTML.slice(0, 80);
  const lie_over = (a, b, slack) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > slack;

  const blocks = [...document.querySelectorAll("h1, h2, h3, main p, dl, figure, .scroll, li, summary")]
    .filter((block) => block.getClientRects().length)
    .map((block) => [block, block.getBoundingClientRect()]);
  for (const [block] of blocks) {
    if (!block.textContent.trim() && !block.querySelector("img, svg")) faults.add(`empty: ${start(block)}`);
  }
  for (const [a, left] of blocks) {
    for (const [b, right] of blocks) {
      if (a === b || a.contains(b) || b.contains(a)) continue;
      if (lie_over(left, right, 1)) faults.add(`over one another: ${start(a)} and ${start(b)}`);
    }
  }

  for (const chart of document.querySelectorAll("[data-chart]")) {
    const svg = chart.querySelector("svg");
    if (!svg?.querySelector(".mark-line path, .mark-symbol path, .mark-rect path")) {
      faults.add(`empty chart: ${chart.dataset.chart}`);
      continue;
    }
    if (svg.getBoundingClientRect().width > chart.clientWidth + 1) faults.add(`wide: ${chart.dataset.chart}`);
    const labels = [...svg.querySelectorAll(".role-axis-label text, .role-legend-label text")]
      .filter((label) => label.textContent && label.getAttribute("opacity") !== "0")
      .map((label) => label.getBoundingClientRect());
    labels.forEach((a, index) => {
      if (labels.slice(index + 1).some((b) => lie_over(a, b, 3))) faults.add(`labels: ${chart.dataset.chart}`);
    });
  }

  for (const image of document.images) if (!image.naturalWidth) faults.add(`no image: ${image.alt}`);
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) faults.add(`${scrollWidth} px wide in a window of ${clientWidth}`);
  return [...faults];
}
