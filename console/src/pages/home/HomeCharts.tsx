// Home's charts: five minutes from the stream, 24 hours from the gateway's own history.
import { useEffect, useMemo } from "preact/hooks";
import { api, path } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Counters, History, Overview } from "../../api/types";
import { Chart } from "../../charts/Chart";
import { rates } from "../../charts/rates";
import { Loaded } from "../../components/states";
import { compact, rate } from "../../text/format";

const perSecond = (value: number) => `${rate(value)}/s`;

/** Seconds that the charts show. */
const LIVE_SPAN_S = 300;
const DAY_S = 86_400;

/** Seconds between two values beyond which the time between is a gap: the stream has one a second, the history one a minute. */
const LIVE_GAP_S = 5;
const DAY_GAP_S = 150;

/** Milliseconds between two looks at the history: it has a new value each minute. */
const HISTORY_EVERY_MS = 60_000;

const SERIES = ["messages_received", "messages_delivered", "rules_matched", "actions_delivered", "connections", "actions_queued"];

export function LiveCharts({ samples }: { samples: Overview[] }) {
  const charts = useMemo(() => {
    const at = samples.map((sample) => sample.at_ms);
    const of = (name: keyof Counters) => rates(at, samples.map((sample) => sample.counters[name]), LIVE_GAP_S * 1000);
    return {
      seconds: at.map((ms) => ms / 1000),
      messages: [
        { label: "in", values: of("messages_received") },
        { label: "out", values: of("messages_sent") },
      ],
      flow: [
        { label: "rules matched", values: of("rules_matched") },
        { label: "actions delivered", values: of("actions_delivered") },
      ],
      queued: [{ label: "requests", values: samples.map((sample) => sample.queue.items) }],
    };
  }, [samples]);
  return (
    <>
      <Chart title="Messages" at={charts.seconds} series={charts.messages} format={perSecond} span={LIVE_SPAN_S} gap={LIVE_GAP_S} />
      <Chart title="Rules and actions" at={charts.seconds} series={charts.flow} format={perSecond} span={LIVE_SPAN_S} gap={LIVE_GAP_S} />
      <Chart title="Waiting" at={charts.seconds} series={charts.queued} format={compact} height={110} least={4} span={LIVE_SPAN_S} gap={LIVE_GAP_S} />
    </>
  );
}

export function HistoryCharts() {
  const history = useResource("history", () => api.get<History>(path("metrics", "history"), { series: SERIES.join(",") }));
  const { reload } = history;
  useEffect(() => {
    const timer = window.setInterval(() => void reload(), HISTORY_EVERY_MS);
    return () => window.clearInterval(timer);
  }, [reload]);
  return <Loaded of={history}>{(data) => <DayCharts history={data} />}</Loaded>;
}

function DayCharts({ history }: { history: History }) {
  const charts = useMemo(() => {
    const raw = (name: string) => history.series.find((series) => series.name === name)?.values ?? history.at_ms.map(() => null);
    const of = (name: string) => rates(history.at_ms, raw(name), DAY_GAP_S * 1000);
    return {
      seconds: history.at_ms.map((ms) => ms / 1000),
      messages: [
        { label: "in", values: of("messages_received") },
        { label: "out", values: of("messages_delivered") },
      ],
      flow: [
        { label: "rules matched", values: of("rules_matched") },
        { label: "actions delivered", values: of("actions_delivered") },
      ],
      queued: [
        { label: "clients", values: raw("connections") },
        { label: "requests queued", values: raw("actions_queued") },
      ],
    };
  }, [history]);
  return (
    <>
      <Chart title="Messages" at={charts.seconds} series={charts.messages} format={perSecond} span={DAY_S} gap={DAY_GAP_S} />
      <Chart title="Rules and actions" at={charts.seconds} series={charts.flow} format={perSecond} span={DAY_S} gap={DAY_GAP_S} />
      <Chart title="Clients and queues" at={charts.seconds} series={charts.queued} format={compact} height={110} least={4} span={DAY_S} gap={DAY_GAP_S} />
    </>
  );
}
