// How the gateway is: its health in words, what flows, what waits, what is lost, and the latest alarms.
import { useState } from "preact/hooks";
import { api, path } from "../../api/client";
import { useResource } from "../../api/resource";
import { useStream } from "../../api/stream";
import type { Overview } from "../../api/types";
import { lastRate } from "../../charts/rates";
import { CopyAs, curl } from "../../components/CopyAs";
import { Live } from "../../components/Live";
import { Page, Panel } from "../../components/Page";
import { Busy, Failed } from "../../components/states";
import { connection, may } from "../../state/session";
import { bytes, count, duration, plural, rate } from "../../text/format";
import { Alarms } from "./Alarms";
import { Health } from "./Health";
import { HistoryCharts, LiveCharts } from "./HomeCharts";
import { Drops } from "./Drops";
import { FirstSteps } from "./FirstSteps";
import { withFresh } from "./samples";

/** Samples between which a rate is taken: over one second alone it would jump about. */
const RATE_SAMPLES = 4;

/** Milliseconds between two samples beyond which they make no rate. */
const RATE_GAP_MS = 5_000;

export function HomePage() {
  const [samples, setSamples] = useState<Overview[]>([]);
  const [paused, setPaused] = useState(false);
  const first = useResource("overview", () => api.get<Overview>(path("overview")));
  const stream = useStream({
    url: path("live", "overview"),
    kinds: ["overview"],
    paused,
    onEvents: (events) => {
      const fresh = events.map((event) => event.data as Overview | null).filter((data) => data !== null);
      setSamples((known) => withFresh(known, fresh));
    },
  });
  const now = samples.at(-1) ?? first.data;

  return (
    <Page
      title="Home"
      tools={
        <>
          <Live state={stream.state} paused={paused} waiting={stream.waiting} onPause={setPaused} />
          <CopyAs
            items={[
              { label: "CLI", text: "tidegate health\ntidegate top\ntidegate alarms" },
              { label: "curl", text: `${curl("GET", path("overview"))}\n${curl("GET", path("live", "overview")).replace("curl", "curl -N")}` },
            ]}
          />
        </>
      }
    >
      {now ? (
        <>
          <Health overview={now} isLost={connection.value === "lost"} />
          {now.counters.messages_received === 0 && may("operator", "messages:write") && <FirstSteps />}
          <Figures now={now} samples={stream.state === "lost" ? [] : samples} />
          <div class="columns two">
            <Panel title="Last five minutes">
              <LiveCharts samples={samples} />
            </Panel>
            <Panel title="Last 24 hours">
              <HistoryCharts />
            </Panel>
          </div>
          <div class="columns two">
            <Panel title="Dropped since the start">
              <Drops dropped={now.dropped} />
            </Panel>
            <Panel title="Latest alarms">
              <Alarms alarms={now.alarms} />
            </Panel>
          </div>
        </>
      ) : first.problem ? (
        <Failed problem={first.problem} retry={() => void first.reload()} />
      ) : (
        <Busy />
      )}
    </Page>
  );
}

function Figures({ now, samples }: { now: Overview; samples: Overview[] }) {
  const last = samples.slice(-RATE_SAMPLES);
  const at = last.map((sample) => sample.at_ms);
  const per = (name: keyof Overview["counters"]) => {
    const perSecond = lastRate(at, last.map((sample) => sample.counters[name]), RATE_GAP_MS);
    return perSecond === null ? "–" : rate(perSecond);
  };
  const { queue, disk } = now;
  return (
    <dl class="figures eight">
      <Figure label="Messages in" value={per("messages_received")} unit="/s" more={`${count(now.counters.messages_received)} since the start`} />
      <Figure label="Messages out" value={per("messages_sent")} unit="/s" more={`${count(now.counters.messages_sent)} since the start`} />
      <Figure label="Clients" value={count(now.clients.connected)} unit="connected" more={plural(now.clients.sessions, "session")} />
      <Figure label="Rules matched" value={per("rules_matched")} unit="/s" more={`${count(now.counters.rules_failed)} failed since the start`} />
      <Figure label="Actions delivered" value={per("actions_delivered")} unit="/s" more={`${count(now.counters.actions_failed)} failed, ${count(now.counters.actions_retried)} retried`} />
      <Figure
        label="Queued"
        value={bytes(queue.memory_bytes + queue.disk_bytes)}
        more={
          queue.oldest_age_ms === null
            ? `${count(queue.items)} requests wait`
            : `${count(queue.items)} wait, the oldest for ${duration(queue.oldest_age_ms)}`
        }
      />
      <Figure
        label="Disk"
        value={disk ? bytes(disk.free_bytes) : "–"}
        unit={disk ? "free" : ""}
        more={disk ? `the store has ${bytes(disk.store_bytes)}` : "everything is kept in memory"}
      />
      <Figure label="Memory" value={bytes(now.memory_bytes)} more={`up for ${duration(now.at_ms - now.started_at_ms)}`} />
    </dl>
  );
}

function Figure({ label, value, unit, more }: { label: string; value: string; unit?: string; more: string }) {
  return (
    <div class="figure">
      <dt>{label}</dt>
      <dd class="figure-value">
        {value} {unit && <span class="figure-unit">{unit}</span>}
      </dd>
      <dd class="figure-more">{more}</dd>
    </div>
  );
}
