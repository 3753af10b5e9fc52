// The console's few drawings, as strokes of 24 by 24. They say nothing by themselves: words stand beside each.
import type { JSX } from "preact";

const PATHS = {
  home: "M3 11 12 4l9 7M5 10v10h5v-6h4v6h5V10",
  rules: "M5 6h9M5 12h14M5 18h6M17 4v4M8 16v4",
  actions: "M4 12h11M11 7l5 5-5 5M20 5v14",
  letters: "M3 6h18v12H3zM3 7l9 7 9-7",
  console: "M4 5h16v14H4zM8 10l3 2.5L8 15M13 15h4",
  check: "M5 12.5 10 17 19 7",
  warning: "M12 4 2.5 20h19zM12 10v4M12 17v.5",
  cross: "M6 6l12 12M18 6 6 18",
  pause: "M8 5v14M16 5v14",
  play: "M7 5l12 7-12 7z",
  plus: "M12 5v14M5 12h14",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2",
  moon: "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z",
  menu: "M4 7h16M4 12h16M4 17h16",
  out: "M10 5H5v14h5M14 8l4 4-4 4M18 12H9",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  freeze: "M12 3v18M4 7.5l16 9M20 7.5l-16 9",
  clock: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16M12 8v4.5l3 2",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  refresh: "M19 8a8 8 0 1 0 1 5M20 4v5h-5",
  circle: "M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10",
  plug: "M9 3v5M15 3v5M6 8h12v3a6 6 0 0 1-12 0zM12 17v4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }): JSX.Element {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Wave() {
  return (
    <svg class="wave" width="26" height="26" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="7" />
      <path d="M5 13c4-4 7-4 11 0s7 4 11 0M5 21c4-4 7-4 11 0s7 4 11 0" />
    </svg>
  );
}
