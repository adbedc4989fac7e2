// What Kratos sends to Vestibule: version 1 of the body. No cookie, CSRF token, OAuth code or password.
// Every part is guarded, because the visitor would see an error in this template as an error page.
function(ctx)
  local get(object, key, default=null) =
    if std.isObject(object) && std.objectHas(object, key) && object[key] != null then object[key] else default;
  local pick(object, keys) = { [key]: object[key] for key in keys if get(object, key) != null };
  local text(value) = if std.isArray(value) then std.join(', ', value) else value;

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
  {
    version: 1,
    flow: pick(flow, ['id', 'type', 'issued_at', 'expires_at', 'return_to']) + {
      transient_payload: get(flow, 'transient_payload', {}),
    },
    [if identity != null then 'identity']:
      pick(identity, ['id', 'schema_id', 'external_id', 'state', 'state_changed_at', 'created_at', 'updated_at']) + data(identity) + {
        verifiable_addresses: addresses(get(identity, 'verifiable_addresses', []), ['value', 'via', 'verified', 'status']),
        recovery_addresses: addresses(get(identity, 'recovery_addresses', []), ['value', 'via']),
      },
    // Settings only: the identity before the change, also after Kratos has saved the change.
    [if get(flow, 'identity') != null then 'previous']: data(flow.identity),
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
        for name in ['Accept-Language', 'User-Agent', 'True-Client-Ip']
        if get(headers, name) != null
      },
    },
  }
