// Small comforts; every page works without them.
(function () {
  // Row menus are <details>: one open at a time, closed by Escape, a click elsewhere or leaving with Tab.
  const closeMenus = (except) =>
    document.querySelectorAll("details.menu[open]").forEach((menu) => {
      if (menu !== except) menu.open = false;
    });
  document.addEventListener("click", (event) => closeMenus(event.target.closest("details.menu")));
  document.addEventListener("focusin", (event) => closeMenus(event.target.closest("details.menu")));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = document.querySelector("details.menu[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });

  // A click on a table row follows the row's main link, unless it hit a control or selected text.
  document.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-href]");
    if (!row || event.target.closest("a, button, summary, details, input, label, form")) return;
    if (String(window.getSelection())) return;
    window.location = row.dataset.href;
  });

  // A button that was pressed says so and cannot be pressed twice.
  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (!button || event.target.method === "get") return;
    window.setTimeout(() => {
      button.disabled = true;
      button.dataset.pressed = "";
      if (button.dataset.busy) button.textContent = button.dataset.busy;
    });
  });
  window.addEventListener("pageshow", () =>
    document.querySelectorAll("button[data-pressed]:disabled").forEach((button) => (button.disabled = false))
  );

  // A log that is polled stays where it was scrolled to, or at its end.
  let scrolled = null;
  document.addEventListener("htmx:beforeSwap", (event) => {
    const log = event.detail.target.querySelector("pre.log");
    scrolled = log && { id: log.id, top: log.scrollTop, end: log.scrollTop + log.clientHeight >= log.scrollHeight - 4 };
  });
  document.addEventListener("htmx:afterSettle", () => {
    const log = scrolled && document.getElementById(scrolled.id);
    if (log) log.scrollTop = scrolled.end ? log.scrollHeight : scrolled.top;
    scrolled = null;
  });

  // Fields that matter only for one choice of another: data-when="id_type=s3" (several values by commas).
  const showFields = () =>
    document.querySelectorAll("[data-when]").forEach((part) => {
      const [name, values] = part.dataset.when.split("=");
      const fields = [...document.getElementsByName(name)];
      const chosen = fields.find((field) => field.type !== "radio" || field.checked);
      part.hidden = !chosen || !values.split(",").includes(chosen.type === "checkbox" ? String(chosen.checked) : chosen.value);
    });
  document.addEventListener("change", showFields);
  document.addEventListener("htmx:afterSettle", showFields);
  showFields();

  // The zone of the browser, offered where the person has not chosen one.
  document.querySelectorAll("[data-fill-zone]").forEach((button) => {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    button.hidden = !zone;
    button.textContent = "Use " + zone;
    button.addEventListener("click", () => (document.getElementById(button.dataset.fillZone).value = zone));
  });

  // What is printed is said by the style sheet.
  document.querySelectorAll("[data-print]").forEach((button) => (button.hidden = false));
  document.addEventListener("click", (event) => event.target.closest("[data-print]") && window.print());

  // Typing into the field of a choice chooses it.
  document.addEventListener("input", (event) => {
    const choice = event.target.closest(".choice");
    const radio = choice && choice.querySelector('input[type="radio"]');
    if (!radio || radio === event.target || radio.checked) return;
    radio.checked = true;
    radio.dispatchEvent(new Event("change", { bubbles: true }));
  });

  // A click on the timeline fills the moment that was clicked into the wizard's field.
  document.addEventListener("click", (event) => {
    const picture = event.target.closest("svg[data-pick]");
    const field = picture && document.getElementById(picture.dataset.pick);
    if (!field) return;
    const box = picture.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const [from, to] = [picture.dataset.from, picture.dataset.to].map(Number);
    const at = new Date((from + share * (to - from)) * 1000);
    // The Swedish locale writes "2026-11-22 18:30:00".
    field.value = at.toLocaleString("sv-SE", { timeZone: picture.dataset.zone });
    field.dispatchEvent(new Event("change", { bubbles: true }));
    const choice = document.querySelector('input[name="moment"][value="time"]');
    if (choice) {
      choice.checked = true;
      choice.dispatchEvent(new Event("change", { bubbles: true }));
    }
    field.focus();
  });
})();
