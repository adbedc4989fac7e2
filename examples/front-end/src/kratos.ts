// Sets up Ory's SDK and Elements for a browser: with cookies, and with the visitor's language.

import { Configuration, FrontendApi } from "@ory/client-fetch"
import type { OryClientConfiguration } from "@ory/elements-react"
import type { Language } from "./language"
import type { Settings } from "./settings"

function options(language: Language) {
  // Kratos passes this header to Vestibule, which answers in that language.
  return { headers: { "Accept-Language": language, Accept: "application/json" }, credentials: "include" as const }
}

export function api(settings: Settings, language: Language): FrontendApi {
  return new FrontendApi(new Configuration({ basePath: settings.kratos, ...options(language) }))
}

export function elements(settings: Settings, language: Language, name: string): OryClientConfiguration {
  const here = (path: string) => `${window.location.origin}${path}`
  return {
    sdk: { url: settings.kratos, options: options(language) },
    intl: {
      locale: language,
      // The titles of the identity schema are English; these replace them.
      customTranslations: {
        de: {
          "forms.label.traits.email": "E-Mail",
          "forms.label.traits.company": "Firma",
          "forms.label.traits.vat_number": "USt-IdNr.",
          "forms.label.traits.invite": "Einladungscode",
        },
      },
    },
    project: {
      name,
      default_redirect_url: here("/welcome"),
      error_ui_url: here("/error"),
      login_ui_url: here("/login"),
      registration_ui_url: here("/registration"),
      recovery_ui_url: here("/recovery"),
      settings_ui_url: here("/settings"),
      verification_ui_url: here("/verification"),
      registration_enabled: true,
      verification_enabled: true,
      recovery_enabled: false,
      hide_ory_branding: true,
    },
  }
}
