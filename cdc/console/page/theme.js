// The theme is set before anything is drawn: as the system has it, or as it was chosen here.
(() => {
  const themes = ['auto', 'light', 'dark'];
  const names = {auto: 'as the system has it', light: 'light', dark: 'dark'};
  const signs = {auto: '◐', light: '☀', dark: '☾'};
  const root = document.documentElement;
  let theme = 'auto';
  try { theme = localStorage.getItem('theme') || 'auto'; } catch { /* storage may be forbidden: then nothing is kept */ }
  if (!themes.includes(theme)) theme = 'auto';
  root.dataset.theme = theme;

  document.addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const show = () => {
      button.textContent = signs[theme];
      button.setAttribute('aria-label', 'Theme: ' + names[theme]);
      button.title = 'Theme: ' + names[theme];
    };
    button.addEventListener('click', () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      root.dataset.theme = theme;
      try { localStorage.setItem('theme', theme); } catch { /* likewise */ }
      show();
      document.dispatchEvent(new Event('theme'));
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => document.dispatchEvent(new Event('theme')));
    show();
  });
})();
