// The frame of every page: the company's name, the choice of language, and a message for failures.

import { useEffect, useState, type PropsWithChildren } from "react"
import { chooseLanguage, LANGUAGES, texts, type Language } from "../language"

export function Frame({ language, children }: PropsWithChildren<{ language: Language }>) {
  const labels = texts(language)
  const [broken, setBroken] = useState(false)
  useEffect(() => {
    document.documentElement.lang = language
    // Elements throws what it cannot show: no answer, a 5xx, an answer that is not from Kratos.
    const onBroken = () => {
      setBroken(true)
    }
    window.addEventListener("unhandledrejection", onBroken)
    return () => {
      window.removeEventListener("unhandledrejection", onBroken)
    }
  }, [language])
  return (
    <>
      <header className="bar">
        <h1>{labels.brand}</h1>
        <div className="languages" role="group" aria-label={labels.language}>
          {LANGUAGES.map((one) => (
            <button
              key={one}
              type="button"
              lang={one}
              aria-pressed={one === language}
              onClick={() => {
                chooseLanguage(one)
                window.location.reload()
              }}
            >
              {one === "de" ? "Deutsch" : "English"}
            </button>
          ))}
        </div>
      </header>
      <main>
        {broken && (
          <p className="broken" role="alert">
            {labels.unreachable}
          </p>
        )}
        {children}
      </main>
    </>
  )
}

export function Waiting({ language }: { language: Language }) {
  return <p className="waiting">{texts(language).loading}</p>
}

export function Failure({ language, reason }: { language: Language; reason: string }) {
  const labels = texts(language)
  return (
    <section className="card" role="alert">
      <h2>{labels.error}</h2>
      <p>{reason || labels.unreachable}</p>
      <p>
        <a href="/registration">{labels.again}</a>
      </p>
    </section>
  )
}
