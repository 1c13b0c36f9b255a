"""The gateway: routes generations to verifiers, supplies them with drafters, and keeps them alive when either dies.

    openai/            the OpenAI-compatible HTTP face        failover     one generation that outlives its verifiers
    verifier_face      the verifier's own gRPC API            leg          one stream to one verifier
    records            sessions of gRPC clients               upstreams    who is up, and what is served
    drafter_relay      drafters that join through here        placement    who gets the next session
    text, vocabulary   tokens to text, stop strings           drafters     who is asked to guess
    admission, auth    who may come in, and when              server       puts it together

Rule: nothing here knows a model; it runs without torch and transformers.
"""
