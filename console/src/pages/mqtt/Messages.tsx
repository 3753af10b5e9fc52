// The messages that came, newest first: only the rows that are seen are in the page, be there ten or ten thousand.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Icon } from "../../components/icons";
import { Panel } from "../../components/Page";
import { Empty } from "../../components/states";
import { bytes, clock, count } from "../../text/format";
import { hexOf, pretty } from "../../text/payload";
import type { Incoming } from "./messageLog";

/** Height of a row in pixels, and rows beyond the edges that are there already. */
const ROW_PX = 34;
const BEYOND = 6;

/** Bytes of a payload that a row shows. */
const ROW_BYTES = 64;

interface Props {
  messages: Incoming[];
  total: number;
  waiting: number;
  paused: boolean;
  onPause: (paused: boolean) => void;
  onClear: () => void;
  onReuse: (message: Incoming) => void;
}

export function Messages({ messages, total, waiting, paused, onPause, onClear, onReuse }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(400);
  const [picked, setPicked] = useState<Incoming | null>(null);
  const [search, setSearch] = useState("");
  const fitting = useMemo(() => (search ? messages.filter((message) => message.topic.includes(search) || message.text?.includes(search)) : messages), [messages, search]);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const watcher = new ResizeObserver(() => setHeight(element.clientHeight));
    watcher.observe(element);
    return () => watcher.disconnect();
  }, [fitting.length === 0]);

  const first = Math.max(0, Math.floor(top / ROW_PX) - BEYOND);
  const last = Math.min(fitting.length, Math.ceil((top + height) / ROW_PX) + BEYOND);
  const rows: { message: Incoming; index: number }[] = [];
  for (let index = first; index < last; index += 1) {
    const message = fitting[fitting.length - 1 - index];
    if (message) rows.push({ message, index });
  }

  const isCut = picked !== null && picked.payload.length < picked.bytes;
  const properties = picked ? propertiesOf(picked) : [];

  return (
    <Panel
      title="Messages"
      class="messages"
      tools={
        <>
          <span class="faint message-count">
            {paused && waiting > 0 ? `paused, ${count(waiting)} new` : `${count(total)} received`}
          </span>
          <button type="button" aria-pressed={paused} onClick={() => onPause(!paused)}>
            <Icon name={paused ? "play" : "pause"} /> {paused ? "Resume" : "Pause"}
          </button>
          <button type="button" disabled={total === 0} onClick={onClear}>
            <Icon name="trash" /> Clear
          </button>
        </>
      }
    >
      {messages.length > 0 && (
        <label class="field">
          <span class="hidden">Only messages with</span>
          <input type="search" placeholder="Only messages with this in their topic or text" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
      )}
      {messages.length > 0 && fitting.length === 0 ? (
        <Empty title="None of the messages has that" />
      ) : messages.length === 0 ? (
        <Empty title="No messages yet">
          <p>Connect, subscribe to a Topic Filter, and what is published there shows up here.</p>
        </Empty>
      ) : (
        <div class="virtual" ref={box} tabIndex={0} role="region" aria-label="Messages that were received" onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
          <ul style={{ height: `${fitting.length * ROW_PX}px` }}>
            {rows.map(({ message, index }) => (
              <li key={fitting.length - index} style={{ transform: `translateY(${index * ROW_PX}px)` }}>
                <button type="button" aria-pressed={picked === message} onClick={() => setPicked(picked === message ? null : message)}>
                  <span class="faint">{clock(message.at)}</span>
                  <span class="mono strong cut">{message.topic}</span>
                  <span class="mono cut">{message.text ?? hexOf(message.payload.subarray(0, ROW_BYTES))}</span>
                  <span class="faint">
                    QoS {message.qos}
                    {message.retain && ", retained"}
                  </span>
                </button>
              </li>
            ))}
          </ul>
        </div>
      )}
      {picked && (
        <div class="picked-message">
          <div class="row-head">
            <strong class="mono">{picked.topic}</strong>
            <span class="faint">
              {bytes(picked.bytes)}
              {picked.text === undefined && ", in hexadecimal"}
              {isCut && `, the first ${bytes(picked.payload.length)} of it`}
            </span>
            <button type="button" class="push" disabled={isCut} title={isCut ? "The whole payload isn't kept" : undefined} onClick={() => onReuse(picked)}>
              Publish one like it
            </button>
          </div>
          <pre tabIndex={0} aria-label="Payload">
            {picked.text === undefined ? hexOf(picked.payload) : pretty(picked.text)}
          </pre>
          {properties.length > 0 && (
            <dl class="facts">
              {properties.map(([name, value], index) => (
                <div key={index}>
                  <dt>{name}</dt>
                  <dd class="mono">{value}</dd>
                </div>
              ))}
            </dl>
          )}
        </div>
      )}
    </Panel>
  );
}

function propertiesOf({ contentType, responseTopic, userProperties }: Incoming): [string, string][] {
  const pairs = userProperties.map(({ name, value }): [string, string] => [name, value]);
  if (responseTopic) pairs.unshift(["Response Topic", responseTopic]);
  if (contentType) pairs.unshift(["Content Type", contentType]);
  return pairs;
}
