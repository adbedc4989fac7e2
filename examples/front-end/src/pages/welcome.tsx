// Shows the account that Kratos finds by the session cookie.

import type { FrontendApi, Session } from "@ory/client-fetch"
import { useEffect, useState } from "react"
import { texts, type Language } from "../language"
import { Waiting } from "./frame"

type Found = { session: Session; logOut: string } | "signed-out" | "asking"

function useSession(api: FrontendApi): Found {
  const [found, setFound] = useState<Found>("asking")
  useEffect(() => {
    async function ask() {
      const session = await api.toSession()
      const { logout_url: logOut } = await api.createBrowserLogoutFlow()
      return { session, logOut }
    }
    ask().then(setFound, () => {
      setFound("signed-out")
    })
  }, [api])
  return found
}

function Entries({ of }: { of: Record<string, unknown> }) {
  return (
    <dl>
      {Object.entries(of).map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd>
        </div>
      ))}
    </dl>
  )
}

export function WelcomePage({ api, language }: { api: FrontendApi; language: Language }) {
  const say = texts(language)
  const found = useSession(api)
  if (found === "asking") return <Waiting language={language} />
  if (found === "signed-out") {
    return (
      <section className="card">
        <h2>{say.notSignedIn}</h2>
        <p className="links">
          <a href="/registration">{say.signUp}</a> <a href="/login">{say.logIn}</a>
        </p>
      </section>
    )
  }
  const { identity } = found.session
  const known = (identity?.metadata_public ?? {}) as Record<string, unknown>
  return (
    <section className="card">
      <h2>{say.welcome}</h2>
      <p role="status">{say.signedIn}</p>
      <h3>{say.account}</h3>
      <Entries of={(identity?.traits ?? {}) as Record<string, unknown>} />
      {Object.keys(known).length > 0 && (
        <>
          <h3>{say.known}</h3>
          <Entries of={known} />
        </>
      )}
      <h3>{say.howSignedIn}</h3>
      <p>{say.cookie}</p>
      <p className="links">
        <a href="/settings">{say.settings}</a> <a href={found.logOut}>{say.logOut}</a>
      </p>
    </section>
  )
}
