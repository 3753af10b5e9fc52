// One dead letter: the message that it came of, the request as it was rendered, what the far side answered; sent again as
// it is, or with the message mended.
import { useState } from "preact/hooks";
import { api, path } from "../../api/client";
import { useResource } from "../../api/resource";
import type { LettersDone, Shown, WholeLetter } from "../../api/types";
import { CopyAs, curl } from "../../components/CopyAs";
import { Confirm } from "../../components/Dialog";
import { Icon } from "../../components/icons";
import { say, sayProblem } from "../../components/Notices";
import { Page, Panel } from "../../components/Page";
import { Loaded } from "../../components/states";
import { Time } from "../../components/Time";
import { go, href, listPlace } from "../../routes";
import { may } from "../../state/session";
import { bytes, plural, words } from "../../text/format";
import { pretty } from "../../text/payload";
import { MendForm } from "./MendForm";

interface Props {
  rule: string;
  action: string;
  position: string;
}

export function DeadLetterPage({ rule, action, position }: Props) {
  const place = path("dead-letters", rule, action, position);
  const letter = useResource(place, () => api.get<WholeLetter>(place));
  const [mends, setMends] = useState(false);
  const [drops, setDrops] = useState(false);
  const [busy, setBusy] = useState(false);
  const mayChange = may("operator", "dead_letters:write");

  const done = async (what: () => Promise<LettersDone>, said: string) => {
    setBusy(true);
    try {
      const answer = await what();
      const refused = answer.refused[0];
      if (refused) throw new Error(refused.message);
      say(said);
      go(listPlace("#/dead-letters"));
    } catch (thrown) {
      sayProblem(thrown);
    } finally {
      setBusy(false);
      setDrops(false);
    }
  };

  return (
    <Page
      above={<a href={listPlace("#/dead-letters")}>Dead letters</a>}
      title={`${rule}/${action}:${position}`}
      tools={
        <>
          <CopyAs
            items={[
              { label: "CLI", does: "look", text: `tidegate dead-letters show ${rule}/${action}:${position}` },
              { label: "CLI", does: "send again", text: `tidegate dead-letters redrive ${rule}/${action}:${position}` },
              { label: "curl", does: "look", text: curl("GET", place) },
              { label: "curl", does: "send again", text: curl("POST", `${place}/redrive`) },
            ]}
          />
          {mayChange && letter.data && (
            <>
              <button type="button" disabled={busy || !letter.data.request} onClick={() => void done(() => api.post(`${place}/redrive`), "The request is sent again")}>
                <Icon name="refresh" /> Redrive
              </button>
              <button type="button" class="primary" disabled={busy || !letter.data.message} onClick={() => setMends(true)}>
                Edit and redrive
              </button>
              <button type="button" class="danger-quiet" disabled={busy} onClick={() => setDrops(true)}>
                <Icon name="trash" /> Drop…
              </button>
            </>
          )}
        </>
      }
    >
      <Loaded of={letter}>
        {(data) => (
          <>
            <section class="health bad" aria-label="Cause">
              <p class="health-line">
                <Icon name="warning" size={20} />
                <strong>{words(data.letter.cause)}</strong>
              </p>
              <pre class="answer" tabIndex={0} aria-label="Last error">
                {data.letter.error}
              </pre>
              <p class="faint">
                {plural(data.letter.attempts ?? 0, "attempt")}; ended <Time ms={data.letter.ended_at_ms} none="at a time that isn't known" />
              </p>
            </section>
            {mends && data.message && (
              <MendForm
                message={data.message}
                busy={busy}
                onSend={(message) => done(() => api.post(`${place}/redrive`, { message }), "The mended message is sent")}
                onClose={() => setMends(false)}
              />
            )}
            <div class="columns two">
              <Panel title="Original message">
                {data.message ? (
                  <>
                    <dl class="facts">
                      <Fact name="topic" value={data.message.topic} />
                      <Fact name="publisher" value={data.message.publisher ?? "–"} />
                      <Fact name="QoS" value={String(data.message.qos)} />
                      {data.message.content_type && <Fact name="Content Type" value={data.message.content_type} />}
                      {data.message.user_properties.map((property, index) => (
                        <Fact key={index} name={property.name} value={property.value} />
                      ))}
                      <div>
                        <dt>received</dt>
                        <dd>
                          <Time ms={data.message.received_at_ms} />
                        </dd>
                      </div>
                    </dl>
                    <Bytes shown={data.message.payload} label="Payload" />
                  </>
                ) : (
                  <p class="faint">The message is unreadable.</p>
                )}
              </Panel>
              <Panel title="Rendered request">
                {data.request ? (
                  data.request.map((part) => (
                    <div class="part" key={part.name}>
                      <h3>{part.name}</h3>
                      <Bytes shown={part.value} label={part.name} />
                    </div>
                  ))
                ) : (
                  <p class="faint">There is none: a template failed on the message.</p>
                )}
              </Panel>
            </div>
            <p>
              The rule: <a href={href("rules", rule)}>{rule}</a>. Its action: <a href={href("actions", rule, action)}>{action}</a>.
            </p>
          </>
        )}
      </Loaded>
      {drops && (
        <Confirm
          title="Drop this dead letter?"
          act="Drop 1 dead letter"
          dangerous
          typed="1"
          onConfirm={() => done(() => api.delete(place), "The dead letter is dropped")}
          onClose={() => setDrops(false)}
        >
          <p>The letter and its message will be gone. There is no way back.</p>
        </Confirm>
      )}
    </Page>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd class="mono">{value}</dd>
    </div>
  );
}

function Bytes({ shown, label }: { shown: Shown; label: string }) {
  const text = shown.text !== undefined ? pretty(shown.text) : (shown.hex ?? "");
  return (
    <>
      <pre class="bytes" tabIndex={0} aria-label={label}>
        {text}
      </pre>
      {(shown.cut || shown.text === undefined) && (
        <p class="hint">
          {bytes(shown.bytes)}
          {shown.text === undefined && ", in hexadecimal"}
          {shown.cut && ", cut"}
        </p>
      )}
    </>
  );
}
