// A fake OpenID provider: discovery, authorization, token and keys.
import { createHash, generateKeyPairSync, randomUUID, sign } from 'node:crypto'
import { LocalServer, json } from './http'
import { freePort } from './port'

const lifetime_s = 600

export class Provider {
  /** The address of the visitor who is signed in at the provider. */
  email = 'nobody@example.org'

  private constructor(private readonly server: LocalServer) {}

  static async open(): Promise<Provider> {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const jwk = publicKey.export({ format: 'jwk' })
    const kid = createHash('sha256').update(String(jwk.n)).digest('hex').slice(0, 16)
    const codes = new Map<string, { nonce: string | null; client: string | null; email: string }>()

    const idToken = (claims: object): string => {
      const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
      const text = `${part({ alg: 'RS256', typ: 'JWT', kid })}.${part(claims)}`
      return `${text}.${sign('RSA-SHA256', Buffer.from(text), privateKey).toString('base64url')}`
    }

    const provider: Provider = new Provider(
      new LocalServer(await freePort(), (request, response, body) => {
        const issuer = provider.url
        const url = new URL(request.url ?? '/', issuer)
        switch (url.pathname) {
          case '/.well-known/openid-configuration':
            return json(response, 200, {
              issuer,
              authorization_endpoint: `${issuer}/authorize`,
              token_endpoint: `${issuer}/token`,
              jwks_uri: `${issuer}/keys`,
              response_types_supported: ['code'],
              subject_types_supported: ['public'],
              id_token_signing_alg_values_supported: ['RS256'],
            })
          case '/keys':
            return json(response, 200, { keys: [{ ...jwk, kid, use: 'sig', alg: 'RS256' }] })
          case '/authorize': {
            // Every visitor is signed in at the provider and consents.
            const code = randomUUID()
            codes.set(code, { nonce: url.searchParams.get('nonce'), client: url.searchParams.get('client_id'), email: provider.email })
            const redirect = new URL(url.searchParams.get('redirect_uri') ?? '')
            redirect.searchParams.set('code', code)
            redirect.searchParams.set('state', url.searchParams.get('state') ?? '')
            response.writeHead(303, { Location: redirect.href }).end()
            return
          }
          case '/token': {
            const code = new URLSearchParams(body).get('code') ?? ''
            const grant = codes.get(code)
            // A code can be used once.
            if (!grant || !codes.delete(code)) return json(response, 400, { error: 'invalid_grant' })
            const now = Math.floor(Date.now() / 1000)
            const claims = {
              iss: issuer,
              aud: grant.client,
              sub: createHash('sha256').update(grant.email).digest('hex'),
              iat: now,
              exp: now + lifetime_s,
              email: grant.email,
              email_verified: true,
              ...(grant.nonce ? { nonce: grant.nonce } : {}),
            }
            return json(response, 200, {
              access_token: randomUUID(),
              token_type: 'Bearer',
              expires_in: lifetime_s,
              id_token: idToken(claims),
            })
          }
          default:
            return json(response, 404, { error: `the provider has no ${url.pathname}` })
        }
      }),
    )
    await provider.server.up()
    return provider
  }

  get url(): string {
    return this.server.url
  }

  close(): Promise<void> {
    return this.server.down()
  }
}
