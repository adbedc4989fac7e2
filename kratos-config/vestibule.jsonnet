// What Kratos sends to Vestibule: version 2 of the body. No cookie, CSRF token, OAuth code or password.
// Every part is guarded, because the visitor would see an error in this template as an error page.
function(ctx)
  // `vestibule kratos hooks --config FILE` adds the headers of `hooks.headers`.
  local forwarded = ["Accept-Language", "User-Agent", "True-Client-Ip"];

  local get(object, key, default=null) =
    if std.isObject(object) && std.objectHas(object, key) && object[key] != null then object[key] else default;
  local pick(object, keys) = { [key]: object[key] for key in keys if get(object, key) != null };
  local text(value) = if std.isArray(value) then std.join(', ', value) else value;
  local behind(text, part) = std.join(part, std.split(text, part)[1:]);

  // The identity's data, complete, because Kratos replaces each field that Vestibule answers.
  local data(identity) = {
    traits: get(identity, 'traits', {}),
    metadata_public: get(identity, 'metadata_public', {}),
  };
  local addresses(list, keys) = [pick(address, keys) for address in list];

  local flow = ctx.flow;
  local identity = get(ctx, 'identity');
  local nodes = get(get(flow, 'ui'), 'nodes');
  local headers = get(ctx, 'request_headers', {});

  // Only of registrations, because other flows can be opened with a token. Without the secret of an OAuth server.
  local opened = std.split(get(flow, 'request_url', ''), '?');
  local query = std.join('&', [
    parameter
    for parameter in std.split(std.join('?', opened[1:]), '&')
    if parameter != '' && !std.startsWith(parameter, 'login_challenge=')
  ]);
  local is_registration = behind(get(get(flow, 'ui'), 'action', ''), '/self-service/registration?') != '';
  // Only the URL to which the provider sends the visitor back names the provider.
  local provider = behind(std.split(get(ctx, 'request_url', ''), '?')[0], '/methods/oidc/callback/');
  {
    version: 2,
    forwarded_headers: forwarded,
    flow: pick(flow, ['id', 'type', 'issued_at', 'expires_at', 'return_to']) + {
      transient_payload: get(flow, 'transient_payload', {}),
      [if is_registration && opened != [''] then 'request_url']: opened[0] + (if query == '' then '' else '?' + query),
      [if provider != '' then 'provider']: provider,
    },
    [if identity != null then 'identity']:
      pick(identity, ['id', 'schema_id', 'external_id', 'state', 'state_changed_at', 'created_at', 'updated_at']) + data(identity) + {
        verifiable_addresses: addresses(get(identity, 'verifiable_addresses', []), ['value', 'via', 'verified', 'status']),
        recovery_addresses: addresses(get(identity, 'recovery_addresses', []), ['value', 'via']),
      },
    // Settings only: the identity before the change, also after Kratos has saved the change.
    [if get(flow, 'identity') != null then 'previous']: pick(flow.identity, ['state', 'state_changed_at']) + data(flow.identity),
    nodes: if nodes == null then null else [
      {
        name: node.attributes.name,
        hidden: get(node.attributes, 'type') == 'hidden',
        [if get(get(get(node, 'meta'), 'label'), 'text') != null then 'title']: node.meta.label.text,
      }
      for node in nodes
      if std.startsWith(get(get(node, 'attributes'), 'name', ''), 'traits.')
    ],
    request: {
      headers: {
        [name]: text(headers[name])
        for name in forwarded
        if get(headers, name) != null
      },
    },
  }
