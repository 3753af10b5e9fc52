// Which page is shown: sign-in as long as nobody is, else that of the route, in the shell.
import { useEffect } from "preact/hooks";
import { Shell } from "./components/Shell";
import { Wave } from "./components/icons";
import { Busy } from "./components/states";
import { ActionPage } from "./pages/actions/ActionPage";
import { ActionsPage } from "./pages/actions/ActionsPage";
import { DeadLetterPage } from "./pages/deadletters/DeadLetterPage";
import { DeadLettersPage } from "./pages/deadletters/DeadLettersPage";
import { EditorPage } from "./pages/editor/EditorPage";
import { HomePage } from "./pages/home/HomePage";
import { MqttPage } from "./pages/mqtt/MqttPage";
import { RulesPage } from "./pages/rules/RulesPage";
import { NotFoundPage } from "./pages/NotFoundPage";
import { SignInPage } from "./pages/signin/SignInPage";
import { route, titleOf } from "./routes";
import { connection, session } from "./state/session";

export function App() {
  const { id, parameters, query } = route.value;
  const name = parameters["name"] ?? "";
  const who = session.value;

  useEffect(() => {
    const subject = name || [parameters["rule"], parameters["action"]].filter(Boolean).join("/");
    document.title = who ? `${subject || titleOf(id)} · Tidegate` : "Sign in · Tidegate";
  }, [id, name, who]);

  if (who === undefined) return connection.value === "lost" ? <NoAnswer /> : <Busy label="Starting the console" />;
  if (who === null) return <SignInPage />;
  return <Shell>{page(id, parameters, query)}</Shell>;
}

/** Before anything is known of the gateway. */
function NoAnswer() {
  return (
    <main class="gate" id="main" tabIndex={-1}>
      <div class="gate-card" role="alert">
        <div class="gate-brand">
          <Wave />
          <span>Tidegate</span>
        </div>
        <h1>The gateway does not answer</h1>
        <p>It may be stopped, restarting, or cut off. The page looks for it and goes on by itself.</p>
      </div>
    </main>
  );
}

function page(id: string, parameters: Record<string, string>, query: URLSearchParams) {
  const of = (name: string) => parameters[name] ?? "";
  switch (id) {
    case "home":
    case "sign-in":
    case "setup":
      return <HomePage />;
    case "rules":
      return <RulesPage />;
    case "rule-new":
      return <EditorPage key={`new ${query.get("from") ?? ""}`} name={null} from={query.get("from")} />;
    case "rule":
      return <EditorPage key={of("name")} name={of("name")} from={null} />;
    case "actions":
      return <ActionsPage />;
    case "action":
      return <ActionPage key={`${of("rule")}/${of("action")}`} rule={of("rule")} action={of("action")} />;
    case "dead-letters":
      return <DeadLettersPage />;
    case "dead-letter":
      return <DeadLetterPage key={of("position")} rule={of("rule")} action={of("action")} position={of("position")} />;
    case "mqtt":
      return <MqttPage />;
    default:
      return <NotFoundPage />;
  }
}
