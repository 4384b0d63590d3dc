"""Kakoi: a confidential clean room. The rooms, from the ground up:

    room       does I/O?   who must trust it
    core       no          everybody
    attest     no          the data owner          judging evidence
    dataset    no          owner and enclave       sealed format
    tlog       no          whoever verifies        Merkle log, checkpoints, proofs
    contract   no          everybody               what parties agree to
    wire       no          owner and enclave       the conversation, as a state machine
    evidence   yes         inside the TEE          asking the hardware
    net        yes         owner and enclave       the one small client of the hub
    guard      yes         nobody                  events, detection, posture
    enclave    yes         inside the TEE          keeper, sandbox, engines, gate
    broker     yes         the data owner          decisions, ledger, keys
    rehearse   yes         each user               a contract on invented data, before anybody signs
    sdk, cli   yes         each user
    hub        yes         nobody                  delivers; trusted for availability only
    testing    yes         nobody                  shipped for tests, never in an image

Imports point down; ``pyproject.toml`` holds the rules and ``tests/architecture`` shows that each can fail.
"""
