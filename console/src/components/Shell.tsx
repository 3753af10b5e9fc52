// What stands around every page: navigation, who is signed in, the banner of a gateway that doesn't answer.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { route } from "../routes";
import { clockAhead, connection, isReadOnly, may, session, signOut } from "../state/session";
import { isDark, nextTheme } from "../state/theme";
import { duration } from "../text/format";
import { Icon, type IconName, Wave } from "./icons";
import { Notices } from "./Notices";

interface Entry {
  label: string;
  place: string;
  icon: IconName;
  /** Routes that belong to it. */
  routes: string[];
  role: "viewer" | "operator";
  scope: string;
}

/** Groups of the navigation. A new page is an entry here and one in routes.json. */
const GROUPS: { label: string; entries: Entry[] }[] = [
  {
    label: "Gateway",
    entries: [{ label: "Home", place: "#/", icon: "home", routes: ["home"], role: "viewer", scope: "server:read" }],
  },
  {
    label: "Flow",
    entries: [
      { label: "Rules", place: "#/rules", icon: "rules", routes: ["rules", "rule", "rule-new"], role: "viewer", scope: "rules:read" },
      { label: "Actions", place: "#/actions", icon: "actions", routes: ["actions", "action"], role: "viewer", scope: "actions:read" },
      {
        label: "Dead letters",
        place: "#/dead-letters",
        icon: "letters",
        routes: ["dead-letters", "dead-letter"],
        role: "viewer",
        scope: "dead_letters:read",
      },
    ],
  },
  {
    label: "Tools",
    entries: [{ label: "MQTT console", place: "#/mqtt", icon: "console", routes: ["mqtt"], role: "operator", scope: "messages:write" }],
  },
];

export function Shell({ children }: { children: ComponentChildren }) {
  const [isOpen, setOpen] = useState(false);
  const { id } = route.value;
  useEffect(() => setOpen(false), [route.value]);
  useEffect(() => {
    document.addEventListener("keydown", findByKey);
    return () => document.removeEventListener("keydown", findByKey);
  }, []);

  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={skipToMain}>
        Skip to the content
      </a>
      <header class="side">
        <div class="brand">
          <Wave />
          <span>Tidegate</span>
          <button
            type="button"
            class="quiet menu-button"
            aria-expanded={isOpen}
            aria-controls="navigation"
            onClick={() => setOpen(!isOpen)}
          >
            <Icon name={isOpen ? "cross" : "menu"} size={20} />
            <span class="hidden">{isOpen ? "Close the navigation" : "Open the navigation"}</span>
          </button>
        </div>
        <div class={isOpen ? "side-body open" : "side-body"} id="navigation">
          <nav aria-label="Pages">
            {GROUPS.map((group) => {
              const entries = group.entries.filter((entry) => may(entry.role, entry.scope));
              return entries.length === 0 ? null : (
                <div class="nav-group" key={group.label}>
                  <h2>{group.label}</h2>
                  <ul>
                    {entries.map((entry) => (
                      <li key={entry.place}>
                        <a href={entry.place} aria-current={entry.routes.includes(id) ? "page" : undefined}>
                          <Icon name={entry.icon} size={17} />
                          {entry.label}
                        </a>
                      </li>
                    ))}
                  </ul>
                </div>
              );
            })}
          </nav>
          <div class="side-foot">
            <button type="button" class="quiet wide" onClick={nextTheme}>
              <Icon name={isDark.value ? "sun" : "moon"} />
              {isDark.value ? "Light colours" : "Dark colours"}
            </button>
            <div class="who">
              <span class="who-name">{session.value?.name}</span>
              <span class="who-role">
                {session.value?.role}
                {isReadOnly.value && ", read-only"}
              </span>
            </div>
            <button type="button" class="quiet wide" onClick={() => void signOut()}>
              <Icon name="out" />
              Sign out
            </button>
            <a class="licences" href="/console/licences.txt" target="_blank" rel="noreferrer">
              Licences of others' work
            </a>
          </div>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {connection.value === "lost" && (
          <div class="banner bad" role="alert">
            <Icon name="plug" />
            <span>
              <strong>Disconnected.</strong> The gateway does not answer. What is shown is as it was last; the console looks for
              it and goes on by itself.
            </span>
          </div>
        )}
        {clockAhead.value !== 0 && (
          <div class="banner warn" role="status">
            <Icon name="clock" />
            <span>
              <strong>The clocks differ.</strong> The gateway's is {duration(Math.abs(clockAhead.value))} {clockAhead.value > 0 ? "ahead of" : "behind"} this
              computer's. Times are those of the gateway.
            </span>
          </div>
        )}
        {children}
      </main>
      <Notices />
    </div>
  );
}

/** `/` goes to the page's search, where nothing is being written. */
function findByKey(event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.isContentEditable || target.closest("input, textarea, select, dialog")) return;
  const box = document.querySelector<HTMLInputElement>("main input[type=search]");
  if (!box) return;
  event.preventDefault();
  box.focus();
}

function skipToMain(event: Event): void {
  // The hash is the route; only the focus moves.
  event.preventDefault();
  document.getElementById("main")?.focus();
}
