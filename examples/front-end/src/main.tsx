// Reads Kratos's address, then shows the page that the URL names.

import "@ory/elements-react/theme/styles.css"
import "./style.css"
import { StrictMode, useMemo } from "react"
import { createRoot } from "react-dom/client"
import { api, elements } from "./kratos"
import { currentLanguage, texts } from "./language"
import { ErrorPage } from "./pages/error"
import { LoginPage, RegistrationPage, SettingsPage, VerificationPage } from "./pages/flows"
import { Failure, Frame } from "./pages/frame"
import { WelcomePage } from "./pages/welcome"
import { readSettings, type Settings } from "./settings"

const language = currentLanguage()

function Page({ settings }: { settings: Settings }) {
  const props = useMemo(
    () => ({
      api: api(settings, language),
      config: elements(settings, language, texts(language).brand),
      language,
    }),
    [settings],
  )
  switch (window.location.pathname) {
    case "/registration":
      return <RegistrationPage {...props} />
    case "/login":
      return <LoginPage {...props} />
    case "/verification":
      return <VerificationPage {...props} />
    case "/settings":
      return <SettingsPage {...props} />
    case "/error":
      return <ErrorPage {...props} />
    default:
      return <WelcomePage {...props} />
  }
}

const root = createRoot(document.getElementById("root") as HTMLElement)
const show = (page: React.ReactNode) => {
  root.render(
    <StrictMode>
      <Frame language={language}>{page}</Frame>
    </StrictMode>,
  )
}

readSettings().then(
  (settings) => {
    show(<Page settings={settings} />)
  },
  (failure: unknown) => {
    show(<Failure language={language} reason={failure instanceof Error ? failure.message : ""} />)
  },
)
