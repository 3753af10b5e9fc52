// What somebody may do first with a gateway that nothing has been published to yet.
import { Panel } from "../../components/Page";
import { may } from "../../state/session";

const PUBLISH = `tidegate pub -t sensors/hall/temp -m '{"temperature": 64.5}'`;

export function FirstSteps() {
  return (
    <Panel title="First steps">
      <ol class="first-steps">
        <li>
          Publish a message, from a terminal of this machine or from the <a href="#/mqtt">MQTT console</a>:
          <pre tabIndex={0} aria-label="A command that publishes a message">
            {PUBLISH}
          </pre>
        </li>
        {may("operator", "rules:write") && (
          <li>
            <a href="#/new-rule">Write a rule</a>: begin with an example, click the message as it goes by, and see what would become of it before anything is sent.
          </li>
        )}
        <li>
          Look here again: what comes in, what rules make of it, and what waits or is lost. This panel goes with the first message.
        </li>
      </ol>
    </Panel>
  );
}
