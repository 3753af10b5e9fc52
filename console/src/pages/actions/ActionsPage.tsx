// All actions with their state and its cause, what waits, and the connectors they go through.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, path } from "../../api/client";
import { usePages } from "../../api/pages";
import { useStream } from "../../api/stream";
import type { Action, ActionPage as Page_, ActionState } from "../../api/types";
import { CopyAs, curl } from "../../components/CopyAs";
import { Live } from "../../components/Live";
import { ListFoot } from "../../components/ListFoot";
import { Page } from "../../components/Page";
import { Empty, Loaded } from "../../components/states";
import { may } from "../../state/session";
import { href, route, setQuery } from "../../routes";
import { bytes, count, duration } from "../../text/format";
import { Connectors } from "./Connectors";
import { StateBadge } from "./StateBadge";

/** Actions of a page. */
const PAGE_ACTIONS = 100;

/** Milliseconds between two looks while something changes: events say that it does. */
const LOOK_AGAIN_MS = 1_000;

/** Milliseconds between two looks while no event comes. */
const LOOK_ANYWAY_MS = 5_000;

const STATES: ActionState[] = ["running", "waiting", "refused", "paused", "draining", "stopped"];

export function ActionsPage() {
  const { query } = route.value;
  const [state, setState] = useState(query.get("state") ?? "");
  const [rule, setRule] = useState(query.get("rule") ?? "");
  const [paused, setPaused] = useState(false);
  const actions = usePages({ key: `actions ${state} ${rule}`, load: (after) => load(state, rule, after), entries: (page) => page.actions });
  const lastLook = useRef(0);
  const due = useRef<number | undefined>(undefined);
  const { reload } = actions;

  const refresh = async () => {
    lastLook.current = Date.now();
    await reload();
  };
  const stream = useStream({
    url: may("viewer", "rules:read") ? path("live", "rules") : null,
    kinds: ["rule"],
    paused,
    subject: (data) => (data as { name?: string } | null)?.name ?? "",
    onEvents: () => {
      if (due.current !== undefined) return;
      const wait = Math.max(0, lastLook.current + LOOK_AGAIN_MS - Date.now());
      due.current = window.setTimeout(() => {
        due.current = undefined;
        void refresh();
      }, wait);
    },
  });
  useEffect(() => {
    // Ages grow and tries come nearer though nothing happens.
    const timer = window.setInterval(() => {
      if (!paused && !document.hidden) void refresh();
    }, LOOK_ANYWAY_MS);
    return () => window.clearInterval(timer);
  }, [paused]);
  useEffect(() => () => window.clearTimeout(due.current), []);
  // Another place of the same page: a link to it, a step back.
  useEffect(() => {
    setState(query.get("state") ?? "");
    setRule(query.get("rule") ?? "");
  }, [query]);

  return (
    <Page
      title="Actions"
      tools={
        <>
          <Live state={stream.state} paused={paused} waiting={stream.waiting} onPause={setPaused} />
          <CopyAs
            items={[
              { label: "CLI", text: "tidegate actions list" },
              { label: "curl", text: `${curl("GET", path("actions"))}\n${curl("GET", path("connectors"))}` },
            ]}
          />
        </>
      }
    >
      <div class="filters">
        <label class="field">
          <span>Rule</span>
          <input
            value={rule}
            placeholder="its whole name"
            spellcheck={false}
            onChange={(event) => {
              const wanted = event.currentTarget.value.trim();
              setRule(wanted);
              setQuery({ state, rule: wanted });
            }}
          />
        </label>
        <label class="field">
          <span>State</span>
          <select
            value={state}
            onChange={(event) => {
              setState(event.currentTarget.value);
              setQuery({ state: event.currentTarget.value, rule });
            }}
          >
            <option value="">all</option>
            {STATES.map((one) => (
              <option key={one} value={one}>
                {one}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Loaded of={actions}>
        {(data) =>
          data.actions.length === 0 ? (
            <Empty title={rule ? `No action of a rule ${rule}${state && ` is ${state}`}` : state ? `No action is ${state}` : "No actions yet"}>{!state && !rule && <p>Rules have actions: what is done with their output.</p>}</Empty>
          ) : (
            <>
              <div class="scroll">
                <table class="table cards">
                  <thead>
                    <tr>
                      <th scope="col">Action</th>
                      <th scope="col">State</th>
                      <th scope="col" class="number">Waiting</th>
                      <th scope="col" class="number">Oldest</th>
                      <th scope="col" class="number">Next try</th>
                      <th scope="col" class="number">Delivered</th>
                      <th scope="col" class="number">Dead letters</th>
                    </tr>
                  </thead>
                  <tbody>
                    {data.actions.map((action) => (
                      <ActionRow key={`${action.rule}/${action.name}`} action={action} />
                    ))}
                  </tbody>
                </table>
              </div>
              <ListFoot of={actions} shown={data.actions.length} what="action" />
            </>
          )
        }
      </Loaded>
      {may("viewer", "connectors:read") && <Connectors />}
    </Page>
  );
}

function load(state: string, rule: string, after?: string): Promise<Page_> {
  return api.get<Page_>(path("actions"), { state, rule, limit: PAGE_ACTIONS, after });
}

function ActionRow({ action }: { action: Action }) {
  const { queue, outcomes } = action;
  const dead = Object.values(outcomes?.dead_lettered ?? {}).reduce((sum, one) => sum + one, 0);
  return (
    <tr>
      <td data-label="Action" class="main-cell">
        <a class="strong" href={href("actions", action.rule, action.name)}>
          {action.rule}/{action.name}
        </a>{" "}
        <span class="tag">{action.kind ?? "gone"}</span>
        <div class="row-more mono">{action.resource}</div>
      </td>
      <td data-label="State" class="main-cell">
        <StateBadge state={action.state} />
        {action.cause && <div class="row-more">{action.cause}</div>}
      </td>
      <td data-label="Waiting" class="number">
        {queue ? count(queue.queued) : "–"}
        {queue && queue.queued > 0 && <div class="row-more">{bytes(queue.disk_bytes ?? queue.memory_bytes)}</div>}
      </td>
      <td data-label="Oldest" class="number">
        {queue?.oldest_age_ms === null || queue?.oldest_age_ms === undefined ? "–" : duration(queue.oldest_age_ms)}
      </td>
      <td data-label="Next try" class="number">
        {queue?.next_attempt_in_ms === null || queue?.next_attempt_in_ms === undefined ? "–" : `in ${duration(queue.next_attempt_in_ms)}`}
      </td>
      <td data-label="Delivered" class="number">
        {count(outcomes?.delivered ?? outcomes?.received ?? 0)}
      </td>
      <td data-label="Dead letters" class="number">
        {dead > 0 ? <a href={`#/dead-letters?rule=${encodeURIComponent(action.rule)}&action=${encodeURIComponent(action.name)}`}>{count(dead)}</a> : "0"}
      </td>
    </tr>
  );
}
