"""The join handshake, by which a host with a token becomes a member.

```
applicant                                  member
  knock     [1, nonce, address, port,  -->          any member: it has the token's join key
             padding]
                                       <--  way     [2, nonce, cookie, card, signature, proof,
                                                     holders]   or refusal [3, nonce, code]
  request   [4, nonce, cookie, ticket, key,         a holder of the authority, whose proof
             name, address, port, sig, pad] ->          signs the nonce and its seal key
                                       <--  welcome [5, nonce, certificate, cluster key]
                                                     or refusal [6, nonce, code]
```
Sans-IO: datagrams in, datagrams out. Knocks are sealed under the join key (*door* in PROTOCOL.md),
which any member has; requests also under the two nodes' own keys, so that neither the ticket nor
the cluster's secret is visible to the thief of a token or to a member without the authority. Until
the request, members keep no state.
"""
