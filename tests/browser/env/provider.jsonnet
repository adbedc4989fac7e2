// Kratos copies only the address from the provider. The visitor types the other fields.
local claims = std.extVar('claims');
{
  identity: {
    traits: { email: claims.email },
  },
}
