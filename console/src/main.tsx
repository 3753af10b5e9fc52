// Starts the console: theme, routes, session, then the pages.
import { render } from "preact";
import { App } from "./app";
import { listenToRoutes } from "./routes";
import { refreshSession, watchConnection } from "./state/session";
import { startTheme } from "./state/theme";
import "./styles/theme.css";
import "./styles/layout.css";
import "./styles/parts.css";
import "./styles/lists.css";
import "./styles/pages.css";
import "./styles/editor.css";
import "uplot/dist/uPlot.min.css";

startTheme();
listenToRoutes();
watchConnection();
void refreshSession();

const root = document.getElementById("app");
if (root) render(<App />, root);
