"""Hand-picked searches that reach beyond a value: modifiers of meaning, `_filter`, `_list`, near, chains and results.

https://hl7.org/fhir/R4/search.html#modifiers, https://hl7.org/fhir/R4/search_filter.html
"""

SOME = """
Observation?code:text=blood pressure
Observation?combo-code:text=apgar&_sort=date
Condition?code:text=burn&_sort=-_id
Encounter?class:text=inpatient
Procedure?code:text=personal
Medication?code:text=alemtuzumab
Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|SS|999-15-6195
Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|DL|S99995308,http://terminology.hl7.org/CodeSystem/v2-0203|PPN|X32360986X
ImagingStudy?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|ACSN|W12342398
Patient?gender:in=http://hl7.org/fhir/ValueSet/administrative-gender
Observation?status:in=http://hl7.org/fhir/ValueSet/observation-status&_count=4
Observation?category:in=http://hl7.org/fhir/ValueSet/observation-category&code=29463-7
Observation?category:not-in=http://hl7.org/fhir/ValueSet/observation-category&_count=6
Encounter?class:in=http://terminology.hl7.org/ValueSet/v3-ActEncounterCode&_sort=date
Encounter?class:below=http://terminology.hl7.org/CodeSystem/v3-ActCode|_ActEncounterCode&_count=8
Encounter?class:above=http://terminology.hl7.org/CodeSystem/v3-ActCode|IMP
Observation?status:below=amended,final&_count=3
Condition?clinical-status:in=http://hl7.org/fhir/ValueSet/condition-clinical&_total=accurate&_count=2
Condition?clinical-status:below=http://terminology.hl7.org/CodeSystem/condition-clinical|active&_count=3
CapabilityStatement?url:below=http://hl7.org/fhir
ActivityDefinition?url:below=http://motivemi.com/artifacts
StructureMap?url:above=http://hl7.org/fhir/StructureMap/example/part
Questionnaire?url:below=http://hl7.org/fhir/Questionnaire,http://example.org
Procedure?location:below=Location/ph
Organization?partof:below=Organization/f001
Organization?partof:above=Organization/f001
ChargeItem?performing-organization:identifier=http://myhospital/NamingSystem/departments|CARD_INTERMEDIATE_CARE
ChargeItem?requesting-organization:identifier=CARD_U1
Patient?name:exact=Jim
Patient?given:contains=ETE
Patient?name:contains=üß,solo
Patient?family=SOLO&gender:not=male
Patient?address-use:missing=false&_sort=-address-use,_id
Observation?value-quantity:missing=true&value-concept:missing=true&_count=5
Observation?data-absent-reason:missing=false
Observation?encounter:missing=false&performer:missing=true&_sort=date&_count=5
Observation?component-value-quantity:missing=false&_count=4
MedicationRequest?intended-dispenser:missing=false
Claim?identifier:not=http://happyvalley.com/claim|12345&_count=5
Encounter?status:not=finished&_sort=_id
Observation?status:not=final&_sort=-date,_id
Patient?_filter=family eq "chalmers"
Patient?_filter=given sw pet and birthdate eq 1974-12-25
Patient?_filter=family ew "mers" or family co "euv"
Patient?_filter=not (gender eq male)
Patient?_filter=birthdate ge 1980-01-01 and (gender eq male or gender eq female)&_sort=birthdate
Patient?_filter=organization.name co "gastro"
Patient?_filter=active pr true and link pr false
Patient?_filter=identifier eq urn:oid:1.2.36.146.595.217.0.1|12345&gender=male
Patient?_filter=family gt m&_sort=family,_id
Observation?_filter=code eq http://loinc.org|29463-7 and value-quantity gt 50
Observation?_filter=status ne final&_sort=_id
Observation?_filter=date po 2018-04&_sort=date
Observation?_filter=patient.family sw chal and category eq vital-signs
RiskAssessment?_filter=probability gt 0.01 or subject re Patient/example
Location?_filter=name co "wing"
Encounter?_filter=date le 2014-01-01 and not (status eq in-progress)&_count=6
Condition?_list=example
Condition?_list=example,example-empty&clinical-status=active
Condition?_list=example&_sort=-_id&_total=accurate
?_list=example&_type=Condition,Patient
Location?near=42.2565|-83.69481|11.2|km
Location?near=42.25475478|-83.6945691
Location?near=42.3314|-83.0458|34|[mi_i]
Location?near=-83.6947|42.2565|2|km,42.25475478|-83.6945691|1|km&_sort=name
Location?near:missing=true
HealthcareService?location.near=42.2565|-83.69481|10|km
Encounter?subject:Patient.organization:Organization.name=gastro&_count=4
DiagnosticReport?result.subject:Patient.family=dach
DiagnosticReport?result.code=http://loinc.org|2093-3,http://loinc.org|718-7&_count=5
ExplanationOfBenefit?claim.use=claim&_sort=-created&_count=3
ClaimResponse?request:missing=false&requestor:Organization.name=gastro
MedicationDispense?prescription.intent=order&_sort=-_id
MedicationRequest?encounter.participant:Practitioner.family:missing=false&_count=5
MedicationRequest?code=313782&subject:Patient.family:exact=Casper
Appointment?slot.start=ge2013
AllergyIntolerance?patient.organization=Organization/1
Observation?encounter.class=AMB&_sort=date&_count=9
Observation?has-member.has-member:missing=true
Observation?subject.identifier=999-15-6195&category=laboratory&_count=4
Task?focus:MedicationRequest.status=active
Patient?_has:Condition:subject:clinical-status=active&_sort=-birthdate
Patient?_has:Condition:patient:code:text=burn
Patient?_has:AllergyIntolerance:patient:category=food&_has:Encounter:patient:status=finished
Patient?_has:Immunization:patient:vaccine-code=http://hl7.org/fhir/sid/cvx|140
Patient?_has:Appointment:actor:date=ge2013&gender=male
Patient?_has:Group:member:actual=true
Patient?_has:Claim:patient:_has:ExplanationOfBenefit:claim:status=active
Practitioner?_has:Encounter:participant:class=AMB&_sort=family
Practitioner?_has:Specimen:collector:collected=2015-08-16
Organization?_has:Patient:organization:family=chalmers
Organization?_has:Encounter:service-provider:status=finished&_sort=_id
Location?_has:Procedure:location:status=completed
Encounter?_has:Observation:encounter:category=laboratory&_count=3
Observation?_has:DiagnosticReport:result:code=57698-3
Claim?_has:ExplanationOfBenefit:claim:status=active&_count=4
Condition?_has:List:item:status=current
Encounter?_include=Encounter:*&_sort=-date&_count=4
Encounter?_include=Encounter:subject&_include:iterate=Patient:organization&_revinclude=Condition:encounter&_count=5
DiagnosticReport?_include=DiagnosticReport:result&_include:iterate=Observation:has-member&_sort=_id
DiagnosticReport?_include=DiagnosticReport:subject:Patient&_elements=code&_count=3
Observation?_include:iterate=Observation:has-member&has-member:missing=false
Organization?_id=1&_revinclude=Patient:organization&_revinclude:iterate=Procedure:patient
Claim?_include=Claim:patient&_include=Claim:provider&_revinclude=ExplanationOfBenefit:claim&_count=3
PractitionerRole?_include=PractitionerRole:location&_include:iterate=Location:endpoint&_id=example
Patient?_revinclude=Condition:subject&_revinclude=Procedure:patient&_revinclude=Claim:patient&family=Little
Patient?_revinclude=Provenance:target&_count=3
Library?_include=Library:composed-of&_sort=title
Observation?_sort=value-quantity,_id&_count=11
Observation?_sort=-value-quantity,code&_count=11
Observation?_sort=code,-date,_id&_count=13&_summary=true
Encounter?_sort=class,-date&_summary=text&_count=6
MedicationRequest?_sort=-authoredon,status,_id&_elements=status,intent
Questionnaire?_sort=url,-date
RiskAssessment?_sort=-probability
MolecularSequence?_sort=variant-start,_id&_total=estimate
Condition?_summary=count&clinical-status=active
Observation?_summary=count&category=laboratory
Observation?_summary=false&_total=accurate&_count=1
Bundle?_summary=data&_sort=_id&_count=2
Observation?_total=estimate&status=final&_count=2
Encounter?_elements=status,class,period&_sort=-_lastUpdated&_count=5
Patient?_profile:missing=true&_count=2
Patient?_tag:missing=true&_security:missing=true&_count=2
Observation?_profile:missing=false&_sort=_id&_count=4
Patient/f001/Encounter?status=finished&_sort=_id
Patient/f201/Observation?_sort=-date,_id
Patient/example/AllergyIntolerance?category=food
Patient/example/*?_type=MedicationRequest,Observation&_count=3
Patient/pat1/MedicationRequest?_include=MedicationRequest:requester&_count=4
Patient/example/*?_count=25&_sort=-_lastUpdated
Patient/example/Observation?_filter=value-quantity gt 10&_sort=_id
Practitioner/example/Procedure?_sort=date
Practitioner/f201/Encounter?_total=accurate
Encounter/f001/MedicationRequest?_sort=_id
RelatedPerson/benedicte/RelatedPerson
Device/example/DeviceRequest?intent=original-order
?_type=Encounter,Procedure&status=finished&_count=9
?_type=Patient,Person&identifier=12345&_sort=_id
?_type=Location,Organization&_sort=-_id&_count=12
?_type=Observation&_summary=count
?_type=Practitioner&_lastUpdated=ge2026-01-05&_elements=name&_count=4
"""
NONE = """
Patient?gender:not-in=http://hl7.org/fhir/ValueSet/administrative-gender
Encounter?status:not=finished,in-progress
Patient?_filter=deceased pr false
Practitioner?_has:PractitionerRole:practitioner:specialty=408443003
DiagnosticReport?result.subject:Patient.family=donald
Organization?_id=f001&_revinclude=Organization:partof
Condition?code:text=39065001
Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|SS|S99943939
Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|12345-no-such
Observation?status:not-in=http://hl7.org/fhir/ValueSet/observation-status
Encounter?class:below=http://terminology.hl7.org/CodeSystem/v3-ActCode|HH&class=AMB
CapabilityStatement?url:below=http://hl7.org/fhi
Questionnaire?url:above=http://hl7.org/fhir
Organization?partof:below=Organization/nowhere
ChargeItem?requesting-organization:identifier=http://elsewhere.example|CARD_U1
Patient?_filter=family eq chal
Patient?_filter=birthdate lt 1900-01-01 and gender eq male
Observation?_filter=status eq final and not (status eq final)
Condition?_list=example-empty
Condition?_list=no-such-list
Patient?_list=example
Location?near=0|0|1|km
Location?near=42.25475478|-83.6945691|1|km&status=suspended
Encounter?subject:Patient.organization:Organization.name=nosuchname
Patient?_has:Condition:subject:code=none-such
Practitioner?_has:PractitionerRole:practitioner:specialty=none-such
Patient/f001/AllergyIntolerance
Patient/example/Encounter?subject=Patient/f001
Encounter/nowhere/Procedure
?_type=Encounter,Procedure&status=no-such-status
?_type=Patient&_lastUpdated=lt2020
"""
REFUSED = """
Condition?_has:List:item:mode=changes
RiskAssessment?_filter=status eq final
Condition?onset-date:text=2012
Patient?identifier:of-type=MR|446053
Patient?gender:in=
Encounter?class:in=http://example.org/fhir/ValueSet/unheard-of
Observation?code:below=29463-7
CapabilityStatement?url:contains=hl7
Patient?organization:exact=Organization/1
Patient?family:not=Chalmers
Patient?family:text=Chalmers
Patient?birthdate:above=1974
Patient?_filter=family
Patient?_filter=(family eq chalmers
Patient?_filter=nonsense eq 1
Patient?_filter=family eq chalmers and
Patient?_filter=birthdate eq yesterday
Patient?_filter=gender about male
Condition?_list=$current-problems
Condition?_list=List/example
Condition?_list:not=example
Location?near=Amsterdam
Location?near=42.25|-83.69|far|km
Location?near=100|0|1|km
Location?near=42.25|-83.69|1|lightyears
Patient?_has:Observation:patient:code:nonsense=1
Patient?_has:Nonsense:patient:code=1
Patient?_has:Observation=1
Encounter?subject:Location.name=x
Encounter?status.code=finished
Observation?_include:recurse=Observation:subject
Observation?_include=Observation
Observation?_include=Observation:subject:Slot
Observation?_revinclude=Nonsense:subject
Observation?_sort=
Observation?_sort:asc=date
Observation?_total:exact=none
Patient/example/Observation?_sort=nonsense
Patient/example/Observation?nonsense=1
?_type=
"""
