// From the disk a page may not read the others, so the search lists them without their sentences.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// Sphinx marks the words of a search in the next page that is opened, whichever it is: only a result is to have the marks.
if (location.pathname.endsWith("/search.html")) {
  let isChosen = false;
  addEventListener("click", ({ target }) => (isChosen = Boolean(target.closest("#search-results a"))));
  addEventListener("pagehide", () => isChosen || localStorage.removeItem("sphinx_highlight_terms"));
}
