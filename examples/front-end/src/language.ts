// English and German. Elements has Kratos's texts in both; Vestibule answers in the language of the request.

export const LANGUAGES = ["en", "de"] as const
export type Language = (typeof LANGUAGES)[number]

const KEY = "language"

/** The language chosen in this app, else the one that the browser prefers, else English. */
export function languageOf(chosen: string | null, preferred: readonly string[]): Language {
  const known = (tag: string) => LANGUAGES.find((language) => tag.toLowerCase().split("-")[0] === language)
  for (const tag of [chosen ?? "", ...preferred]) {
    const language = known(tag)
    if (language) return language
  }
  return "en"
}

export function currentLanguage(): Language {
  return languageOf(localStorage.getItem(KEY), navigator.languages)
}

export function chooseLanguage(language: Language): void {
  localStorage.setItem(KEY, language)
}

const TEXTS = {
  en: {
    brand: "Example company",
    language: "Language",
    welcome: "Welcome",
    signedIn: "You are signed in.",
    notSignedIn: "You are not signed in.",
    logIn: "Log in",
    signUp: "Sign up",
    settings: "Settings",
    logOut: "Log out",
    account: "Your account",
    known: "What we found out",
    howSignedIn: "How you are signed in",
    cookie: "By a cookie that no script can read. There is no session token in a browser.",
    loading: "One moment …",
    error: "Something went wrong",
    again: "Start again",
    unreachable: "The account service cannot be reached. Please try again later.",
    passwordAgain: "Please enter your password once more.",
  },
  de: {
    brand: "Beispielfirma",
    language: "Sprache",
    welcome: "Willkommen",
    signedIn: "Sie sind angemeldet.",
    notSignedIn: "Sie sind nicht angemeldet.",
    logIn: "Anmelden",
    signUp: "Registrieren",
    settings: "Einstellungen",
    logOut: "Abmelden",
    account: "Ihr Konto",
    known: "Was wir herausgefunden haben",
    howSignedIn: "Wie Sie angemeldet sind",
    cookie: "Mit einem Cookie, das kein Skript lesen kann. Im Browser gibt es kein Session-Token.",
    loading: "Einen Moment …",
    error: "Etwas ist schiefgegangen",
    again: "Neu beginnen",
    unreachable: "Der Konto-Dienst ist nicht erreichbar. Bitte versuchen Sie es später noch einmal.",
    passwordAgain: "Bitte geben Sie Ihr Passwort noch einmal ein.",
  },
} as const

export type Texts = (typeof TEXTS)[Language]

export function texts(language: Language): Texts {
  return TEXTS[language]
}
