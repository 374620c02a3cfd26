// Sorts and filters every table.sortable; the page reads as well without it.
(() => {
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  const compare = (a, b) => {
    const [left, right] = [Number(a), Number(b)];
    if (a !== "" && b !== "" && !Number.isNaN(left) && !Number.isNaN(right)) return left - right;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        body.append(...[...body.rows].sort((a, b) => sign * compare(key(a, column), key(b, column))));
      });
    });
    const input = document.getElementById(`${table.id}-filter`);
    if (!input) continue;
    const output = input.parentElement.querySelector("output");
    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      output.textContent = shown === body.rows.length ? "" : `${shown} of ${body.rows.length} rows`;
    };
    input.addEventListener("input", filter);
    input.parentElement.hidden = false;
  }
})();
