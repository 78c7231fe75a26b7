// A region that scrolls must be reachable by keyboard; which ones do depends on the width of the window.
function markScrolling() {
  const selector = "article pre, .cell_output, .cell_output .output, .table-wrapper";
  for (const region of document.querySelectorAll(selector)) {
    if (region.scrollWidth > region.clientWidth) {
      region.tabIndex = 0;
    } else {
      region.removeAttribute("tabindex");
    }
  }
}
addEventListener("load", markScrolling);
addEventListener("resize", markScrolling);
