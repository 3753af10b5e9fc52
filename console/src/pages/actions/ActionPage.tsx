// One action: its state with the cause, its queue over time, what became of requests, and what may be done about it.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { api, path } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Action } from "../../api/types";
import { Chart } from "../../charts/Chart";
import { rates } from "../../charts/rates";
import { CopyAs, curl } from "../../components/CopyAs";
import { Icon } from "../../components/icons";
import { Page, Panel } from "../../components/Page";
import { Loaded } from "../../components/states";
import { Time } from "../../components/Time";
import { href, listPlace } from "../../routes";
import { may } from "../../state/session";
import { bytes, compact, count, duration, rate, words } from "../../text/format";
import { ActionButtons } from "./ActionButtons";
import { TestConnection } from "./Connectors";
import { useLatency } from "./latency";
import { StateBadge } from "./StateBadge";

/** Milliseconds between two looks at the action, and how many of them the charts show. */
const LOOK_EVERY_MS = 1_000;
const LOOKS_MAX = 300;
const SPAN_S = 300;

/** Seconds between two looks beyond which the time between is a gap: nobody looked, or the gateway didn't answer. */
const GAP_S = 5;

interface Look {
  at: number;
  action: Action;
}

export function ActionPage({ rule, action: name }: { rule: string; action: string }) {
  const place = path("actions", rule, name);
  const [looks, setLooks] = useState<Look[]>([]);
  const action = useResource(place, async () => {
    const answer = await api.get<Action>(place);
    setLooks((known) => [...known, { at: Date.now(), action: answer }].slice(-LOOKS_MAX));
    return answer;
  });
  const { reload } = action;
  useEffect(() => {
    const timer = window.setInterval(() => {
      if (!document.hidden) void reload();
    }, LOOK_EVERY_MS);
    return () => window.clearInterval(timer);
  }, [reload]);

  return (
    <Page
      above={<a href={listPlace("#/actions")}>Actions</a>}
      title={`${rule}/${name}`}
      tools={
        <>
          <CopyAs
            items={[
              { label: "CLI", does: "look", text: `tidegate actions show ${rule}/${name}` },
              { label: "CLI", does: "pause", text: `tidegate actions pause ${rule}/${name}` },
              { label: "CLI", does: "drain", text: `tidegate actions drain ${rule}/${name}` },
              { label: "curl", does: "look", text: curl("GET", place) },
              { label: "curl", does: "pause", text: curl("POST", `${place}/pause`) },
              { label: "curl", does: "drain", text: curl("POST", `${place}/drain`) },
            ]}
          />
          {action.data && may("operator", "actions:write") && <ActionButtons action={action.data} onDone={reload} />}
        </>
      }
    >
      <Loaded of={action}>{(data) => <Details action={data} looks={looks} />}</Loaded>
    </Page>
  );
}

function Details({ action, looks }: { action: Action; looks: Look[] }) {
  const { queue, outcomes } = action;
  const latency = useLatency(action.rule, action.name, may("viewer", "metrics:read"));
  const dead = Object.entries(outcomes?.dead_lettered ?? {});
  return (
    <>
      <section class={`health ${action.state === "running" ? "good" : action.state === "refused" ? "bad" : "warn"}`} aria-label="State">
        <p class="health-line">
          <StateBadge state={action.state} />
          <span>{action.cause ?? "Requests are sent as they come."}</span>
        </p>
        {action.paused && (
          <p class="faint">
            since <Time ms={action.paused.at_ms} />
          </p>
        )}
      </section>
      <dl class="figures">
        <Figure label="Waiting" value={queue ? count(queue.queued) : "–"} more={queue ? `${count(queue.in_flight)} being sent` : "no queue"} />
        <Figure
          label="Oldest"
          value={queue?.oldest_age_ms === null || queue?.oldest_age_ms === undefined ? "–" : duration(queue.oldest_age_ms)}
          more={queue ? `${bytes(queue.memory_bytes)} in memory${queue.is_durable ? `, ${bytes(queue.disk_bytes ?? 0)} on disk` : ""}` : ""}
        />
        <Figure
          label="Next try"
          value={queue?.next_attempt_in_ms === null || queue?.next_attempt_in_ms === undefined ? "–" : `in ${duration(queue.next_attempt_in_ms)}`}
          more={queue?.failures_in_a_row ? `${count(queue.failures_in_a_row)} failures in a row` : "no failures in a row"}
        />
        <Figure label="Delivered" value={count(outcomes?.delivered ?? outcomes?.received ?? 0)} more={`${count(outcomes?.attempts ?? 0)} attempts, ${count(outcomes?.retried ?? 0)} retries`} />
        <Figure
          label="Latency"
          value={latency?.medianMs ? `≤ ${duration(latency.medianMs)}` : "–"}
          more={latency?.slowMs ? `the median; 95 of 100 within ${duration(latency.slowMs)}` : "no request was confirmed yet"}
        />
      </dl>
      <div class="columns two">
        <Panel title="Last five minutes">
          <QueueCharts looks={looks} />
        </Panel>
        <div class="stack">
          <Panel title="What became of requests">
            <dl class="facts">
              <Fact name="received" value={count(outcomes?.received ?? 0)} />
              <Fact name="not rendered" value={count(outcomes?.failed_render ?? 0)} />
              <Fact name="refused, the queue was full" value={count(outcomes?.backpressure ?? 0)} />
              {Object.entries(outcomes?.dropped ?? {}).map(([reason, number]) => (
                <Fact key={reason} name={`dropped: ${words(reason)}`} value={count(number)} />
              ))}
              {dead.map(([reason, number]) => (
                <Fact key={reason} name={`dead letters: ${words(reason)}`} value={count(number)} />
              ))}
            </dl>
            {dead.length > 0 && may("viewer", "dead_letters:read") && (
              <p>
                <a href={`#/dead-letters?rule=${encodeURIComponent(action.rule)}&action=${encodeURIComponent(action.name)}`}>Look at its dead letters</a>
              </p>
            )}
          </Panel>
          <Panel title="The far side">
            <dl class="facts">
              <Fact name="rule" value={<a href={href("rules", action.rule)}>{action.rule}</a>} />
              <Fact name="kind" value={action.kind ?? "gone"} />
              <Fact name="acts upon" value={<span class="mono">{action.resource ?? "–"}</span>} />
              <Fact name="confirmed last" value={<Time ms={action.last_delivered_at_ms} />} />
              <Fact name="last failure" value={<Time ms={action.last_error?.at_ms} none="none" />} />
            </dl>
            {action.last_error && (
              <p class="finding error">
                <Icon name="warning" size={13} /> <span>{action.last_error.error}</span>
              </p>
            )}
            {action.connector && may("operator", "connectors:write") && <TestConnection name={action.connector} />}
          </Panel>
        </div>
      </div>
    </>
  );
}

function QueueCharts({ looks }: { looks: Look[] }) {
  const at = looks.map((look) => look.at);
  const seconds = at.map((ms) => ms / 1000);
  const delivered = rates(at, looks.map((look) => look.action.outcomes?.delivered ?? look.action.outcomes?.received ?? null), GAP_S * 1000);
  const failed = rates(at, looks.map((look) => look.action.outcomes?.retried ?? null), GAP_S * 1000);
  return (
    <>
      <Chart title="Queue depth" at={seconds} series={[{ label: "requests", values: looks.map((look) => look.action.queue?.queued ?? null) }]} format={compact} least={4} span={SPAN_S} gap={GAP_S} />
      <Chart title="Age of the oldest" at={seconds} series={[{ label: "age", values: looks.map((look) => look.action.queue?.oldest_age_ms ?? 0) }]} format={duration} height={120} least={4_000} span={SPAN_S} gap={GAP_S} />
      <Chart
        title="Delivery"
        at={seconds}
        series={[
          { label: "delivered", values: delivered },
          { label: "retried", values: failed },
        ]}
        format={(value) => `${rate(value)}/s`}
        height={120}
        span={SPAN_S}
        gap={GAP_S}
      />
    </>
  );
}

function Figure({ label, value, more }: { label: string; value: string; more: string }) {
  return (
    <div class="figure">
      <dt>{label}</dt>
      <dd class="figure-value">{value}</dd>
      <dd class="figure-more">{more}</dd>
    </div>
  );
}

function Fact({ name, value }: { name: string; value: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
