// What Kratos takes over from the provider: the address, and nothing else that the form asks for.
local claims = std.extVar('claims');
{
  identity: {
    traits: { email: claims.email },
  },
}
