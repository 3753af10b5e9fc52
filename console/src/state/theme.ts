// Light or dark: as the system has it, unless somebody chose.
import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const KEY = "tidegate.theme";

export const theme = signal<Theme>(stored());

/** Whether dark colours are shown just now; charts are drawn anew when it changes. */
export const isDark = signal(false);

const preference = window.matchMedia("(prefers-color-scheme: dark)");

function stored(): Theme {
  const value = localStorage.getItem(KEY);
  return value === "light" || value === "dark" ? value : "system";
}

function apply(): void {
  isDark.value = theme.value === "dark" || (theme.value === "system" && preference.matches);
  document.documentElement.dataset["theme"] = isDark.value ? "dark" : "light";
}

export function startTheme(): void {
  preference.addEventListener("change", apply);
  effect(() => {
    if (theme.value === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme.value);
    apply();
  });
}

export function nextTheme(): void {
  theme.value = isDark.value ? "light" : "dark";
}
