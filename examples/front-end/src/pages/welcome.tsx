// Shows the account that Kratos finds by the session cookie.

import type { FrontendApi, Session } from "@ory/client-fetch"
import { useEffect, useState } from "react"
import { texts, type Language } from "../language"
import { Waiting } from "./frame"

type Found = { session: Session; logOut: string } | "signed-out" | "loading"

function useSession(api: FrontendApi): Found {
  const [found, setFound] = useState<Found>("loading")
  useEffect(() => {
    async function load() {
      const session = await api.toSession()
      const { logout_url: logOut } = await api.createBrowserLogoutFlow()
      return { session, logOut }
    }
    load().then(setFound, () => {
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
  const labels = texts(language)
  const found = useSession(api)
  if (found === "loading") return <Waiting language={language} />
  if (found === "signed-out") {
    return (
      <section className="card">
        <h2>{labels.notSignedIn}</h2>
        <p className="links">
          <a href="/registration">{labels.signUp}</a> <a href="/login">{labels.logIn}</a>
        </p>
      </section>
    )
  }
  const { identity } = found.session
  const known = (identity?.metadata_public ?? {}) as Record<string, unknown>
  return (
    <section className="card">
      <h2>{labels.welcome}</h2>
      <p role="status">{labels.signedIn}</p>
      <h3>{labels.account}</h3>
      <Entries of={(identity?.traits ?? {}) as Record<string, unknown>} />
      {Object.keys(known).length > 0 && (
        <>
          <h3>{labels.known}</h3>
          <Entries of={known} />
        </>
      )}
      <h3>{labels.howSignedIn}</h3>
      <p>{labels.cookie}</p>
      <p className="links">
        <a href="/settings">{labels.settings}</a> <a href={found.logOut}>{labels.logOut}</a>
      </p>
    </section>
  )
}
