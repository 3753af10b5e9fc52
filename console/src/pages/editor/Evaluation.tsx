// The evaluation as a tree: every part with its value, what is Undefined with its reason, and the part that decided.
import type { Explanation, Step } from "../../api/types";
import { Badge } from "../../components/Badge";
import { Icon } from "../../components/icons";

/** Parts deeper than this are closed at first. */
const OPEN_DEPTH = 3;

export function Evaluation({ explanation }: { explanation: Explanation }) {
  const matched = explanation.from.some((one) => one.matches);
  return (
    <div class="evaluation">
      <div class="clause">
        <span class="clause-name">FROM</span>
        <ul>
          {explanation.from.map((one) => (
            <li class="step-line" key={one.filter}>
              <Icon name={one.matches ? "check" : "cross"} size={13} />
              <code>{one.filter}</code>
              <span class={one.matches ? "good-text" : "strong"}>{one.matches ? "selects the topic" : "does not select the topic"}</span>
              {!matched && <Decides />}
            </li>
          ))}
        </ul>
      </div>
      {explanation.set.map((one) => (
        <Clause key={one.name} name={`SET ${one.name}`} step={one.expression} />
      ))}
      {explanation.where && <Clause name="WHERE" step={explanation.where} />}
      {explanation.select.map((one, index) => (
        <Clause key={`${one.name} ${index}`} name={index === 0 ? "SELECT" : ""} step={one.expression} as={one.name} />
      ))}
    </div>
  );
}

function Clause({ name, step, as }: { name: string; step: Step; as?: string }) {
  return (
    <div class="clause">
      <span class="clause-name">{name}</span>
      <ul>
        <StepItem step={step} depth={0} as={as} />
      </ul>
    </div>
  );
}

function StepItem({ step, depth, as }: { step: Step; depth: number; as?: string | undefined }) {
  const line = (
    <span class="step-line">
      <code>{step.sql}</code>
      {as && as !== step.sql && <span class="faint">AS {as}</span>}
      <span class={`step-value is-${step.result}`}>{valueText(step)}</span>
      {step.because && <span class="because">{step.because}</span>}
      {step.decides && <Decides />}
    </span>
  );
  if (step.steps.length === 0) return <li>{line}</li>;
  return (
    <li>
      <details open={depth < OPEN_DEPTH}>
        <summary>{line}</summary>
        <ul>
          {step.steps.map((one, index) => (
            <StepItem key={index} step={one} depth={depth + 1} />
          ))}
        </ul>
      </details>
    </li>
  );
}

function Decides() {
  return (
    <Badge tone="info" icon="check">
      decides
    </Badge>
  );
}

function valueText(step: Step): string {
  if (step.result === "undefined") return "undefined";
  if (step.result === "not_evaluated") return "not evaluated";
  if (step.result !== "value") return step.result.replaceAll("_", " ");
  const text = typeof step.value === "string" && step.type !== "String" ? step.value : (JSON.stringify(step.value) ?? "");
  return step.cut ? `${text} …` : text;
}
